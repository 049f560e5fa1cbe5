"""What a server started has ended with it: kernels, and processes that outlive their kernel."""

import json
from pathlib import Path

import psutil
import pytest

from . import servers
from .lab import Lab

DETACHED = """
import subprocess, sys

sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
print(subprocess.Popen(sleeper, start_new_session=True).pid)
"""


def test_a_test_leaves_no_process_no_setting_and_no_file(lab: Lab, tmp_path: Path) -> None:
    lab.open(lab.write("detaches.ipynb", DETACHED))
    lab.theme("dark")
    settings = lab.server.folder / "config" / "lab" / "user-settings"
    assert "JupyterLab Dark" in next(settings.rglob("themes.jupyterlab-settings")).read_text()
    lab.run(0)
    sleeper = psutil.Process(int(lab.text(0).split()[-1]))
    kernel = psutil.Process(int(lab.value("__import__('os').getpid()")))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "log.txt").write_text("done")
    assert lab.bring(tmp_path / "runs") == "runs"
    assert lab.bring(tmp_path / "runs" / "log.txt") == "log.txt"
    assert lab.value("open('log.txt').read() + open('runs/log.txt').read()") == "'donedone'"
    lab.page.close()

    lab.server.forget()
    assert not sleeper.is_running()
    assert not kernel.is_running()
    assert list(lab.server.root.iterdir()) == []
    assert [process.pid for process in servers.marked(lab.server.folder)] == [
        lab.server.process.pid
    ]
    assert lab.server.request("GET", "api/kernels").strip() == b"[]"
    assert not settings.exists()


def test_a_server_ends_with_what_it_started(tmp_path: Path) -> None:
    with servers.jupyterlab(tmp_path) as served:
        kernel = json.loads(served.request("POST", "api/kernels"))
        assert kernel["name"] == "python3"
        started = list(servers.marked(tmp_path))
    assert len(started) > 1
    assert not any(process.is_running() for process in started)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing.ipynb"
    with pytest.raises(RuntimeError, match=r"(?s)ended with code .*missing\.ipynb"):
        servers.voila(tmp_path / "voila", missing).__enter__()
