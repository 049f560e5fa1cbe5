"""Pages of memory: to read into again and again, of a file without a copy, pinned for a card."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import weakref
from pathlib import Path

import torch
from torch import Tensor

POPULATE_READ = 22  # of Linux's madvise; Python has no name for it

_given: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()  # by `pages`, and still there


def fresh(count: int) -> mmap.mmap:
    """`count` bytes of the system's memory that nothing has touched yet.

    Private, though Python would have them shared: shared memory is a file to the kernel, has no
    large pages unless the system was told so, and no account of a process's own bytes lists it.
    """
    if sys.platform == "win32":
        return mmap.mmap(-1, count)
    return mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def pages(count: int) -> Tensor:
    """`count` bytes of memory of their own, uint8, aligned to pages: large ones where there are."""
    memory = fresh(max(count, 1))
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_HUGEPAGE)  # fewer faults when it is first read into
    _given.add(memory)
    return torch.frombuffer(memory, dtype=torch.uint8)[:count]


def paged() -> int:
    """Bytes in all that `pages` gave and are still there; malloc does not know of them."""
    return sum(map(len, list(_given)))


def mapped(path: Path) -> Tensor:
    """The bytes of a file that is not empty, uint8; what is written to them stays in this mapping.

    Raises:
        OSError: If it cannot be mapped.
    """
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    memory.madvise(mmap.MADV_SEQUENTIAL)  # the kernel reads further ahead
    return torch.frombuffer(memory, dtype=torch.uint8)


def bring(memory: Tensor) -> None:
    """Wait until the pages of a mapped file are in memory; other threads run meanwhile.

    Raises:
        OSError: If the disk does not give them, where Linux can say so.
    """
    skip = memory.data_ptr() % mmap.PAGESIZE
    place, length = memory.data_ptr() - skip, memory.numel() + skip
    if sys.platform == "linux":
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if madvise(place, length, POPULATE_READ) == 0:
            return
        if ctypes.get_errno() != errno.EINVAL:  # a kernel before 5.14 does not know it
            raise OSError(errno.EIO, os.strerror(errno.EIO))
    memory.numpy()[:: mmap.PAGESIZE].max()


def pin(memory: Tensor) -> None:
    """Lock memory for copies to a card: what it is, where torch's own pins round up to powers of 2.

    Raises:
        RuntimeError: If the driver refuses.
    """
    if memory.numel():
        done = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
        torch.cuda.check_error(int(done))


def unpin(memory: Tensor) -> None:
    """Undo `pin`."""
    if memory.numel():
        torch.cuda.check_error(int(torch.cuda.cudart().cudaHostUnregister(memory.data_ptr())))
