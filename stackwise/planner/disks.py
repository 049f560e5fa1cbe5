"""How fast a disk is for what a run does with it: reads past the page cache, writes that last."""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PIECE = 8 << 20
SIZE = 128 << 20


def disk_rates(folder: Path, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Bytes/s of one file of `SIZE` bytes in a folder, written, read from disk and from memory.

    Reading goes past the page cache by O_DIRECT, or, where the file system has none, after the
    kernel was told to drop the file's pages. What the machine's own disk caches hold it cannot
    know: figures of a virtual machine may be those of its host's memory.

    Args:
        folder: On the disk that is asked about.
        clock: Seconds.

    Raises:
        OSError: If the folder cannot be written, or has no room.
    """
    data = os.urandom(PIECE)
    handle, name = tempfile.mkstemp(prefix=".calibrate-", dir=folder)
    path = Path(name)
    try:
        began = clock()
        for _ in range(SIZE // PIECE):
            os.write(handle, data)
        os.fsync(handle)
        written = clock() - began
        pages = read_seconds(path, clock, direct=False)
        drop(handle)
        disk = read_seconds(path, clock, direct=True)
    finally:
        os.close(handle)
        path.unlink(missing_ok=True)
    began = clock()
    hashlib.sha256(data).digest()
    hashed = clock() - began
    return {
        "disk/write": SIZE / written,
        "disk/read": SIZE / disk,
        "disk/pages": SIZE / pages,
        "disk/hash": PIECE / hashed,
    }


def drop(handle: int) -> None:
    """Ask the kernel to forget a file's pages, where it can be asked."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def read_seconds(path: Path, clock: Callable[[], float], *, direct: bool) -> float:
    """Seconds of reading a file into one buffer, aligned to pages."""
    buffer = mmap.mmap(-1, PIECE)
    buffer.write(b"\1" * PIECE)  # its pages are there before
    handle = opened(path, direct)
    try:
        began = clock()
        while os.readv(handle, [buffer]):
            pass
        return clock() - began
    finally:
        os.close(handle)
        buffer.close()


def opened(path: Path, direct: bool) -> int:
    """A handle that reads past the page cache if asked to and the file system can."""
    flag = getattr(os, "O_DIRECT", 0) if direct else 0
    try:
        return os.open(path, os.O_RDONLY | flag)
    except OSError:
        return os.open(path, os.O_RDONLY)
