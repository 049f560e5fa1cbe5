"""JupyterLab and Voila for the tests: on the loopback address, with a token, in scratch folders.

A server and everything that it starts, kernels and runs that outlive their kernel, carry a mark in
their environment. So `forget` and the end of `serving` stop all of them, and nothing else, whatever
a test did.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "STACKWISE_BROWSER_TESTS"
HOST = "127.0.0.1"
STARTS_WITHIN_SECONDS = 60
ENDS_WITHIN_SECONDS = 10

# What is written over JupyterLab's own defaults: it asks nobody outside, and shows no question.
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    }
}


@dataclass(frozen=True)
class Served:
    """A server that runs: where it answers, what it asks for, and where its files are."""

    url: str
    token: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def root(self) -> Path:
        """The folder that JupyterLab shows."""
        return self.folder / "root"

    def request(self, method: str, path: str) -> bytes:
        """An answer of the server's own interface."""
        headers = {"Authorization": f"token {self.token}"}
        asked = urllib.request.Request(f"{self.url}/{path}", method=method, headers=headers)
        with urllib.request.urlopen(asked, timeout=STARTS_WITHIN_SECONDS) as answer:
            body: bytes = answer.read()
        return body

    def forget(self) -> None:
        """As it was at its start: no kernel, none of their processes, no setting, no file."""
        for kernel in json.loads(self.request("GET", "api/kernels")):
            self.request("DELETE", f"api/kernels/{kernel['id']}")
        end(process for process in marked(self.folder) if process.pid != self.process.pid)
        shutil.rmtree(self.folder / "config" / "lab", ignore_errors=True)
        for left in self.root.iterdir():  # the folder itself is where the server is at work
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def said(self) -> str:
        """The last lines of its log."""
        lines = (self.folder / "log.txt").read_text(errors="replace").splitlines()
        return "\n".join(lines[-30:])


def marked(folder: Path) -> Iterator[psutil.Process]:
    """The processes that a server in this folder started, directly or not, and itself."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                yield process


def end(processes: Iterator[psutil.Process]) -> None:
    """Ask each to stop, and kill what has not."""
    asked = list(processes)
    for process in asked:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(asked, timeout=ENDS_WITHIN_SECONDS)[1]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(asked, timeout=ENDS_WITHIN_SECONDS)


def scratch(folder: Path) -> dict[str, str]:
    """The environment of a server that reads and writes nothing of who runs the tests."""
    places = {
        "JUPYTER_CONFIG_DIR": folder / "config",
        "JUPYTER_DATA_DIR": folder / "data",
        "JUPYTER_RUNTIME_DIR": folder / "runtime",
        "IPYTHONDIR": folder / "ipython",
    }
    for place in (*places.values(), folder / "root"):
        place.mkdir(parents=True, exist_ok=True)
    settings = folder / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text(json.dumps(SETTINGS))
    # This environment's kernel comes before one that a person installed for themselves.
    ours = {"JUPYTER_PREFER_ENV_PATH": "1", MARK: str(folder)}
    return {**os.environ, **{name: str(place) for name, place in places.items()}, **ours}


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
    return port


@contextlib.contextmanager
def serving(folder: Path, port: int, token: str, command: list[str]) -> Iterator[Served]:
    """The server, from when it answers; at the end it and all that it started have ended."""
    environment = scratch(folder)
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder / "root",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    served = Served(f"http://{HOST}:{port}", token, folder, process)
    try:
        wait_until_it_answers(served)
        yield served
    finally:
        end(iter([psutil.Process(process.pid)] if process.poll() is None else []))
        process.wait()
        end(marked(folder))


def wait_until_it_answers(served: Served) -> None:
    for _ in range(STARTS_WITHIN_SECONDS * 10):
        try:
            served.request("GET", "api")
            return
        except urllib.error.HTTPError:
            return  # Voila has no such page, and says so
        except OSError:
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = served.process.wait(timeout=0.1)
            raise RuntimeError(f"the server ended with code {code}:\n{served.said()}")
    raise RuntimeError(f"no answer in {STARTS_WITHIN_SECONDS} seconds:\n{served.said()}")


@contextlib.contextmanager
def jupyterlab(folder: Path) -> Iterator[Served]:
    """JupyterLab with its application object shown to the page, as `Lab` asks it how it is."""
    port, token = free_port(), secrets.token_hex(16)
    command = ["jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += [f"--ServerApp.ip={HOST}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'root'}"]
    command += ["--LabApp.news_url=None"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with serving(folder, port, token, command) as served:
        yield served


@contextlib.contextmanager
def voila(folder: Path, notebook: Path, cell_seconds: int = 60) -> Iterator[Served]:
    """One notebook as an app; its kernel starts in the notebook's own folder."""
    port, token = free_port(), secrets.token_hex(16)
    command = ["voila", str(notebook), "--no-browser", f"--Voila.ip={HOST}", f"--port={port}"]
    command += [f"--token={token}", f"--VoilaExecutor.timeout={cell_seconds}"]
    command += [f"--Voila.connection_dir_root={folder / 'runtime'}", "--show_tracebacks=True"]
    with serving(folder, port, token, command) as served:
        yield served
