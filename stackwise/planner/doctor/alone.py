"""A function of this package, called in a process of its own.

What it computes leaves nothing in the caller: no threads, no memory, no card. It ends with its
caller, however that ends, and with all that it started. Its results come back as JSON; what it
prints goes to a file, whose last line says why it failed. Run as a module, this is the process.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stackwise.jsontext import dumps, loads

Task = Callable[..., Any]
TOLD: list[Any] = []  # in the process itself: where lines for the caller go


class ChildFailed(RuntimeError):
    """A process that ended without a result."""


class Child:
    """A process that calls one function; use it in a `with` block, which ends it.

    Args:
        task: A function of a module of this package.
        given: Its arguments, as JSON.
        seconds: After these it is killed.
        variables: Of its environment, beside those of this process.
    """

    def __init__(
        self,
        task: Task,
        given: Mapping[str, Any],
        *,
        seconds: float,
        variables: Mapping[str, str],
    ) -> None:
        home = str(Path(__file__).resolve().parents[3])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115
        self.late, self.seconds = False, seconds
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stackwise.planner.doctor.alone"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is the caller's alone
        )
        self.timer = threading.Timer(max(0.0, seconds), self._end_late)
        self.timer.start()
        asked = {"module": task.__module__, "name": task.__name__, "given": dict(given)}
        with suppress(BrokenPipeError):  # it died at once: its own words say why
            assert self.process.stdin is not None
            self.process.stdin.write((dumps(asked) + "\n").encode())
            self.process.stdin.flush()

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """What it tells, as it comes: `{"told": ...}`, and at the end `{"result": ...}`.

        Raises:
            ChildFailed: If it ends without a result.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = loads(line.decode())
            yield found
            if "result" in found:
                return
        raise ChildFailed(self._why())

    def _why(self) -> str:
        """The end of a process in words: too late, by a signal, or what it said last."""
        code = self.process.wait()
        if self.late:
            return f"was ended after {self.seconds:.0f} s, since it took longer than it may"
        if code == -signal.SIGKILL:
            return "was killed by the system, as it does where memory runs out"
        if code < 0:
            return f"crashed: {signal.Signals(-code).name}"
        self.errors.seek(0)
        said = [line for line in self.errors.read().decode(errors="replace").splitlines() if line]
        return said[-1] if said else f"ended with code {code} and said nothing"

    def _end_late(self) -> None:
        self.late = True
        self.kill()

    def kill(self) -> None:
        """SIGKILL to it and to what it started; once it has ended this does nothing."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.timer.cancel()
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def tell(value: Any) -> None:
    """Tell the caller something before the result; nothing where this is no process of its own."""
    for file in TOLD:
        file.write((dumps({"told": value}) + "\n").encode())
        file.flush()


def main() -> None:
    """Read what is asked from standard input, do it, and write the result."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed is no result
    TOLD.append(results)
    asked = loads(sys.stdin.buffer.readline().decode())
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    function = getattr(importlib.import_module(asked["module"]), asked["name"])
    result = function(**asked["given"])
    results.write((dumps({"result": result}) + "\n").encode())
    results.flush()


def _end_with_the_caller() -> None:
    while os.read(0, 1):  # nothing, once the other end is closed
        pass
    os._exit(1)


if __name__ == "__main__":
    # The module that tasks import is another than `__main__`: what they tell has to be the same's.
    importlib.import_module("stackwise.planner.doctor.alone").main()
