"""Processes of a test's own, forked from one that has imported everything and computed nothing.

Importing torch, its compiler and bitsandbytes takes three seconds, which each new Python would
spend again. What such a process allocates, compiles and starts is its own all the same. It is no
stand-in where imports themselves are tested. Run as a script, this is the process that forks.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

HERE, ROOM = Path(__file__), 1 << 20  # bytes that are read at once
THREADS = Path("/proc/self/task")
TOLD = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # as <malloc.h> numbers them
PACKAGES = ["torch._dynamo", "bitsandbytes", "stackwise.training.run", "stackwise.cli.training"]


class Child:
    """A process that runs Python code, as `subprocess.Popen` would show it.

    Args:
        warm: Where it is forked.
        code: Its source, as after `python -c`.
        arguments: What `sys.argv` holds from 1 on.
        malloc: What glibc's would find in its environment, from `TOLD` on.
    """

    def __init__(
        self, warm: Warm, code: str, *arguments: str, malloc: Mapping[str, str] | None = None
    ) -> None:
        self.warm = warm
        ends = [os.pipe(), os.pipe()]
        asked: dict[str, Any] = {"code": code, "arguments": arguments, "folder": os.getcwd()}
        asked |= {"environment": {**os.environ, **(malloc or {})}, "malloc": malloc or {}}
        self.pid = int(warm.ask(asked, [write for _, write in ends]))
        for _, write in ends:
            os.close(write)
        self.stdout, self.stderr = (open(read, encoding="utf-8") for read, _ in ends)  # noqa: SIM115

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended: its exit code, or the negative number of the signal that ended it."""
        return int(self.warm.ask({"wait": self.pid}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None:
            self.send_signal(signal.SIGKILL)
        self.stdout.close()
        self.stderr.close()


class Warm:
    """The process that forks others; use it in a `with` block, which ends it."""

    def __init__(self) -> None:
        self.line, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, str(HERE), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
        theirs.close()

    def ask(self, what: Mapping[str, Any], handles: list[int] | None = None) -> str:
        """What it answers to one request."""
        socket.send_fds(self.line, [json.dumps(what).encode() + b"\n"], handles or [])
        answer = self.line.recv(ROOM).decode()
        assert answer, "the process that forks others has ended"
        return answer

    def run(self, code: str, *arguments: str, malloc: Mapping[str, str] | None = None) -> str:
        """What code prints in a process of its own; it fails where that does."""
        with Child(self, code, *arguments, malloc=malloc) as child:
            # It says little in errors: a pipe holds 64 KiB of that while this reads the other.
            said, errors = child.stdout.read(), child.stderr.read()
            assert child.wait() == 0, errors
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.line.close()  # it ends when nobody can ask any more
        self.process.wait()


def fork_on_request(line: socket.socket) -> None:
    """Fork a process for each request, until there is nobody left to ask."""
    for name in PACKAGES:
        with suppress(ImportError):  # not every machine has bitsandbytes
            importlib.import_module(name)
    os.fsync = lambda handle: None  # as in conftest.py
    gc.collect()
    gc.freeze()
    if THREADS.exists():
        assert len(list(THREADS.iterdir())) == 1, "a thread would be missing in what is forked"
    while True:
        request, handles, _, _ = socket.recv_fds(line, ROOM, 2)
        while request and not request.endswith(b"\n") and (more := line.recv(ROOM)):
            request += more
        if not request.endswith(b"\n"):
            return
        asked = json.loads(request)
        if "wait" in asked:
            _, status = os.waitpid(asked["wait"], 0)
            line.send(str(os.waitstatus_to_exitcode(status)).encode())
        elif pid := os.fork():
            for handle in handles:
                os.close(handle)
            line.send(str(pid).encode())
        else:
            line.close()
            os._exit(run_here(asked, handles))


def run_here(asked: Mapping[str, Any], handles: list[int]) -> int:
    """Run the code of a request as this process's main module; gives the exit code."""
    for number, handle in enumerate(handles, start=1):
        os.dup2(handle, number)
        os.close(handle)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(number, "wb"), write_through=True)  # noqa: SIM115
        for number in (1, 2)
    )
    for name, size in asked["malloc"].items():
        assert ctypes.CDLL(None).mallopt(TOLD[name], int(size))
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["-c", *asked["arguments"]]
    main = sys.modules["__main__"] = ModuleType("__main__")
    code = 0
    try:
        exec(compile(asked["code"], "<string>", "exec"), main.__dict__)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as line:
        fork_on_request(line)
