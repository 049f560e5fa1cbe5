"""Processes of a test's own, forked from one that has imported everything and computed nothing.

Importing torch, its compiler and bitsandbytes takes three seconds, which each new Python would
spend again. What such a process allocates, compiles and starts is its own all the same. It is no
stand-in where imports themselves are tested.
"""

from __future__ import annotations

import ctypes
import gc
import io
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import ModuleType, TracebackType
from typing import Any, Self

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pytest", "torch._dynamo", "bitsandbytes", "stackwise.training.run", "stackwise.cli.training"]
)
TOLD = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # as <malloc.h> numbers them
NOTHING: Mapping[str, str] = {}


def forked(code: str, *arguments: str, malloc: Mapping[str, str] = NOTHING) -> str:
    """What code prints in a process of its own; it fails where that does."""
    with Child(code, *arguments, malloc=malloc) as child:
        # It says little in errors: a pipe holds 64 KiB of that while this reads the other.
        said, errors = child.stdout.read(), child.stderr.read()
        assert child.wait() == 0, errors
    return said


def forked_json(code: str, *arguments: str, malloc: Mapping[str, str] = NOTHING) -> Any:
    """The last line of what code prints so, as JSON."""
    return json.loads(forked(code, *arguments, malloc=malloc).splitlines()[-1])


class Child(ForkServerProcess):
    """A process that runs Python code, with pipes to read from; a `with` block that fails ends it.

    Args:
        code: Its source, as after `python -c`.
        arguments: What `sys.argv` holds from 1 on.
        malloc: What glibc's would find in its environment, from `TOLD` on.
    """

    def __init__(self, code: str, *arguments: str, malloc: Mapping[str, str] = NOTHING) -> None:
        ends = [FORKS.Pipe(duplex=False) for _ in range(2)]
        writers = [write for _, write in ends]
        given = (code, arguments, os.getcwd(), {**os.environ, **malloc}, malloc, writers)
        super().__init__(target=run_here, args=given, daemon=True)
        self.start()  # which pickles it: what is read from comes after
        self.stdout, self.stderr = (
            open(os.dup(read.fileno()), encoding="utf-8")  # noqa: SIM115
            for read, _ in ends
        )
        for end in (*writers, *(read for read, _ in ends)):
            end.close()

    def wait(self) -> int:
        """How it ended: its exit code, or the negative number of the signal that ended it."""
        self.join()
        assert self.exitcode is not None
        return self.exitcode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.stdout.close()
        self.stderr.close()


def run_here(
    code: str,
    arguments: tuple[str, ...],
    folder: str,
    environment: Mapping[str, str],
    malloc: Mapping[str, str],
    writers: list[Connection],
) -> None:
    """Run code as this process's main module, in a folder and an environment."""
    gc.freeze()
    os.fsync = lambda handle: None  # as in conftest.py
    for number, writer in enumerate(writers, start=1):
        os.dup2(writer.fileno(), number)
        writer.close()
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(open(number, "wb"), write_through=True)  # noqa: SIM115
        for number in (1, 2)
    )
    for name, size in malloc.items():
        assert ctypes.CDLL(None).mallopt(TOLD[name], int(size))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), main.__dict__)
