"""A process that ends itself by SIGKILL at a chosen operation on a file, and one ended at a time.

A child is forked from this process, which has imported everything and waits: what it does costs
milliseconds to begin. In the child, each operation of its main thread that changes a file is
counted: opening for writing, writing, flushing, renaming, linking, cutting, removing, making and
removing folders. At the chosen one it is gone before the operation, or, where that is a write, with
a part of the bytes written. So a strike is as exact as its number and can be made again. What
libraries write past Python (Arrow, safetensors, mapped memory) is struck before and after, not
within; other threads by time alone.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Strike:
    """When a child is killed; with neither number nor time it lives to its end.

    Attributes:
        operation: The number of the operation, from 0 on.
        torn_frac: Of the bytes of that operation, if it is a write, how many are written.
        seconds: After how long, from outside.
    """

    operation: int | None = None
    torn_frac: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        killed: Whether it was, before it came to its end.
        operations: What it did to files: all of it, or the one at which it was struck.
        seconds: How long it lived.
    """

    killed: bool
    operations: list[str]
    seconds: float


def struck(action: Callable[[], Any], strike: Strike) -> Ended:
    """Do something in a child of this process that ends as a strike says.

    Args:
        action: What it does.
        strike: When it is killed.

    Raises:
        RuntimeError: If it raises, or ends by itself without a word.
    """
    end, said = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        os.close(end)
        act(action, strike, said)
    os.close(said)
    if strike.seconds is not None and not select.select([end], [], [], strike.seconds)[0]:
        os.kill(child, signal.SIGKILL)
    with open(end, "rb") as pipe:
        text = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killed = code == -signal.SIGKILL
    if code and not killed:
        raise RuntimeError(text.decode(errors="replace") or f"ended with code {code}")
    operations = json.loads(text) if text.startswith(b"[") and text.endswith(b"]") else []
    return Ended(killed, operations, time.monotonic() - began)


def act(action: Callable[[], Any], strike: Strike, said: int) -> NoReturn:
    """In the child: do it, counting, and say what was done to files."""
    try:
        counter = Counter(strike, said)
        counter.watch()
        action()
        counter.tell(counter.seen)
    except BaseException:
        os.write(said, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


class Counter:
    """Counts what this process does to files from `watch` on, and ends it at the chosen one."""

    def __init__(self, strike: Strike, said: int) -> None:
        self.strike, self.said, self.seen = strike, said, list[str]()
        self.thread, self.write = threading.get_ident(), os.write
        self.watching = True

    def watch(self) -> None:
        """Count from here on; it cannot be taken back."""
        sys.addaudithook(self._hear)
        builtins.open = io.open = self._opened
        for name in ("write", "pwrite"):
            setattr(os, name, self._in_parts(getattr(os, name)))
        flush = os.fsync

        def fsync(handle: int) -> None:
            self.count(f"fsync {named(handle)}")
            flush(handle)

        os.fsync = fsync

    def count(self, what: str, partly: Callable[[], Any] | None = None) -> None:
        """Take note of an operation, or be gone before it is whole."""
        if threading.get_ident() != self.thread or not self.watching or " /proc/" in what:
            return
        self.seen.append(what)
        if len(self.seen) - 1 == self.strike.operation:
            self.watching = False
            if partly is not None:
                partly()
            self.tell(self.seen[-1:])
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, operations: list[str]) -> None:
        """Say what was done, to the process that waits."""
        self.watching = False
        text = json.dumps(operations).encode()
        while text:
            text = text[self.write(self.said, text) :]

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event in CHANGES:
            self.count(f"{event[3:]} {named(given[0])}")
        elif event == "open" and isinstance(given[2], int) and given[2] & WRITES:
            self.count(f"open {named(given[0])}")

    def _in_parts(self, write: Callable[..., int]) -> Callable[..., int]:
        def written(handle: int, data: Any, *place: int) -> int:
            part = memoryview(data)[: self._torn(memoryview(data).nbytes)]
            self.count(f"write {named(handle)}", lambda: write(handle, part, *place))
            return write(handle, data, *place)

        return written

    def _torn(self, count: int) -> int:
        return int(count * self.strike.torn_frac)

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any):
        """As `open` does, with writes that are counted where the file is written to."""
        if not set(mode) & set("wax+"):
            return OPEN(file, mode, buffering, *rest, **more)
        raw = Counted(file, mode.replace("b", "").replace("t", ""), counter=self)
        if buffering == 0:
            return raw
        kind = io.BufferedRandom if "+" in mode else io.BufferedWriter
        buffered = kind(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **more)


OPEN = io.open


class Counted(io.FileIO):
    """A file each write to which is an operation."""

    def __init__(self, file: Any, mode: str, *, counter: Counter) -> None:
        super().__init__(file, mode)
        self.counter = counter

    def write(self, data: Any) -> int:
        """Write it, or a part and no more."""
        view = memoryview(data).cast("B")
        part = view[: self.counter._torn(len(view))]
        self.counter.count(f"write {named(self.name)}", lambda: io.FileIO.write(self, part))
        return io.FileIO.write(self, view)


def named(file: Any) -> str:
    """A file or folder as it is told: by its path, whichever way it was given."""
    if isinstance(file, int):
        try:
            return os.readlink(f"/proc/self/fd/{file}")
        except OSError:
            return f"handle {file}"
    return os.fsdecode(file)
