"""A disk that refuses: from its n-th operation on below a folder, or at that one alone.

Every way in which Python code writes below the folder is an operation: making a file, a folder, a
link or a name, writing bytes, flushing them, and removing, where the fault is one that forbids it
(a full disk lets files be removed, a read-only one does not). Of a write that is refused half of
the bytes are on the disk. What libraries in C write is not seen here; a real, small file system is
for them (`integration/test_a_disk_that_refuses_loses_nothing.py`).
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FREES = ("unlink", "remove", "rmdir", "ftruncate")
real_open = io.open


class Refusing:
    """Counts operations below a folder and refuses some.

    Args:
        root: The folder.
        at: The number of the first operation that is refused, from 0 on; None for none.
        number: The error's.
        lasting: Whether all after it are refused, too.

    Attributes:
        seen: Each operation: what, and the file without what changes from run to run.
    """

    def __init__(
        self, root: Path, at: int | None = None, number: int = errno.ENOSPC, lasting: bool = True
    ) -> None:
        self.root, self.at, self.number, self.lasting = root.resolve(), at, number, lasting
        self.seen: list[tuple[str, str]] = []
        self.guard = threading.Lock()

    def inside(self, path: Any) -> str | None:
        """A path below the folder, relative to it; None for any other."""
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        whole = os.path.abspath(os.fspath(path))
        return os.path.relpath(whole, self.root) if whole.startswith(f"{self.root}/") else None

    def ask(self, what: str, path: Any) -> None:
        """Refuse an operation, or let it be carried out.

        Raises:
            OSError: If it is refused.
        """
        where = self.inside(path)
        if where is None or (what in FREES and self.number in (errno.ENOSPC, errno.EDQUOT)):
            return
        with self.guard:
            place = len(self.seen)
            self.seen.append((what, re.sub(r"-?[0-9a-f]{8,}|making-\w+|\d+", "N", where)))
        if self.at is not None and (place >= self.at if self.lasting else place == self.at):
            named = () if isinstance(path, int) else (str(path),)
            raise OSError(self.number, os.strerror(self.number), *named)

    @contextmanager
    def here(self) -> Iterator[None]:
        """Inside, code meets this disk."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builtins, "open", self.open)
            patch.setattr(io, "open", self.open)
            for name in ("mkdir", "rmdir", "unlink", "remove", "ftruncate", "pwrite", "write"):
                patch.setattr(os, name, self.asking(getattr(os, name), name, 0))
            for name in ("link", "rename", "replace"):
                patch.setattr(os, name, self.asking(getattr(os, name), name, 1))
            patch.setattr(os, "sendfile", self.asking(os.sendfile, "write", 0))
            patch.setattr(os, "fsync", lambda handle: self.ask("fsync", handle))
            patch.setattr(os, "open", self.open_handle(os.open))
            yield

    def asking(self, call: Callable[..., Any], name: str, place: int) -> Callable[..., Any]:
        def asked(*args: Any, **kwargs: Any) -> Any:
            if "dir_fd" not in kwargs:  # a whole tree is being removed
                self.ask(name, args[place])
            return call(*args, **kwargs)

        return asked

    def open_handle(self, call: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and "dir_fd" not in kwargs:
                self.ask("create", path)
            return call(path, flags, *args, **kwargs)

        return opened

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kw: Any) -> Any:
        """As the real one."""
        if isinstance(file, int) or not set(mode) & set("wax+") or self.inside(file) is None:
            return real_open(file, mode, buffering, *args, **kw)
        self.ask("create", file)
        raw = Raw(self, os.fspath(file), mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedWriter(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **kw)


class Raw(io.FileIO):
    """A file on such a disk."""

    def __init__(self, disk: Refusing, path: str, mode: str) -> None:
        super().__init__(path, mode)
        self.disk, self.path = disk, path

    def write(self, data: Any, /) -> int:
        try:
            self.disk.ask("write", self.path)
        except OSError:
            super().write(memoryview(data).cast("B")[: len(memoryview(data).cast("B")) // 2])
            raise
        return super().write(data)
