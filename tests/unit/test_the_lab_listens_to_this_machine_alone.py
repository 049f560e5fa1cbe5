"""JupyterLab of `make lab`, and both servers of the browser tests: on loopback, with a token.

What their command lines mean is asked of Jupyter's own application, which is not started.
"""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

import pytest

from stackwise.cli import main

from ..browser import servers

pytest.importorskip("jupyter_server")


def meant(command: list[str]) -> tuple[str, str]:
    """The address and the token that a server of this command line has."""
    from jupyter_server.auth.identity import IdentityProvider
    from jupyter_server.serverapp import ServerApp

    app = ServerApp()
    app.parse_command_line([word for word in command if word.startswith("--") and "." in word])
    identity = IdentityProvider(parent=app)
    assert identity.auth_enabled and not app.disable_check_xsrf and not app.allow_origin
    return app.ip, identity.token


@pytest.fixture
def started(monkeypatch) -> list[list[str]]:
    """The commands that would be started."""
    found: list[list[str]] = []

    @contextlib.contextmanager
    def noted(folder, port, token, command):
        found.append(command)
        yield None

    monkeypatch.setattr(servers, "serving", noted)
    monkeypatch.setattr("subprocess.call", lambda command: found.append(command) or 0)
    return found


def test_the_lab_of_a_user(started, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    assert main(["lab"]) == 0
    (command,) = started
    address, token = meant(command)
    assert ipaddress.ip_address(address).is_loopback and len(token) >= 32


def test_the_servers_of_the_browser_tests(started, tmp_path) -> None:
    (tmp_path / "root").mkdir()
    with servers.jupyterlab(tmp_path):
        pass
    with servers.voila(tmp_path, Path("app.ipynb")):
        pass
    lab, app = started
    address, token = meant(lab)
    assert ipaddress.ip_address(address).is_loopback and len(token) >= 32
    said = dict(word.lstrip("-").partition("=")[::2] for word in app if "=" in word)
    assert ipaddress.ip_address(said["Voila.ip"]).is_loopback and len(said["token"]) >= 32
