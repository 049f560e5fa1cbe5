"""The standard streams of a command, where they are closed, full, or read by nobody.

A run goes on if what it says on standard error cannot be written: its progress is in its folder,
too. What a command prints on standard output is what it was called for, so that is an error with
the stream's name, and comes when there is something to print.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

LAST = 2  # the number of standard error


class Unheard(OSError):
    """Standard output cannot be written; the message is whole as it is."""

    def __str__(self) -> str:
        return f"standard output cannot be written: {self.strerror}"


class Deaf(io.FileIO):
    """A stream to write to, and no matter whether that can be done."""

    def write(self, data: Any) -> int:
        """Write it, or not; all of it is taken for written."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class Named(io.FileIO):
    """A stream whose errors say which one it is."""

    def write(self, data: Any) -> int:
        """Write it.

        Raises:
            BrokenPipeError: If nobody reads it any more.
            Unheard: If it cannot be written otherwise.
        """
        try:
            return super().write(data)
        except BrokenPipeError:
            self._close_quietly()
            raise BrokenPipeError("standard output: nobody reads it any more") from None
        except OSError as error:
            self._close_quietly()
            raise Unheard(error.errno, error.strerror) from None

    def _close_quietly(self) -> None:
        """What is in hand still goes nowhere, so that the end of Python has nothing to say."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Inside, the standard streams of a program of ours are as above."""
    hold_numbers()
    before = sys.stdout, sys.stderr
    sys.stdout = open_over(sys.stdout, sys.__stdout__, Named, 1)
    sys.stderr = open_over(sys.stderr, sys.__stderr__, Deaf, LAST)
    try:
        yield
    finally:
        with suppress(OSError):  # it has been said
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def hold_numbers() -> None:
    """Give closed streams their numbers back: a file of a run that got one would be written to."""
    handle = os.open(os.devnull, os.O_RDWR)
    while handle <= LAST:
        os.set_inheritable(handle, True)
        handle = os.dup(handle)
    os.close(handle)


def open_over(stream: TextIO | None, own: TextIO | None, kind: type[io.FileIO], number: int) -> Any:
    """A stream over the same handle; one that Python did not open itself is left as it is."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    if stream is not own or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw = kind(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or number == LAST,
    )
