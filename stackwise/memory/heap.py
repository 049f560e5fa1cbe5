"""Tensors apart from the heap for a while, so that memory in use is the memory that they take.

glibc's malloc takes pieces of 128 KiB and more from the system one by one, and raises that
threshold to 32 MiB as such pieces are freed. From then on tensors are cut out of one heap, what is
left between them is kept, and the same step takes up to twice as much as the tensors in it: another
share for each shape and stage, which nobody can foretell. Setting the threshold to what it is at
first keeps it there.

The price is pages that the system clears anew: a narrow rack's step takes twice as long. So it is
for the few steps whose memory is measured. A process that has MALLOC_MMAP_THRESHOLD_ in its
environment keeps what that says.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of mallopt
FIRST, LAST = 128 << 10, 32 << 20  # glibc's threshold as it begins, and where its rule ends
PIECES, FIRST_PIECES = 1 << 30, 1 << 16  # at most; the system has a limit of its own
SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@contextmanager
def apart() -> Iterator[None]:
    """Inside, memory of 128 KiB and more comes from the system, and goes back to it when freed.

    Of the whole process. Nothing changes where malloc is not glibc's, or where the environment says
    how it shall work.
    """
    tuned = _mallopt()
    if tuned is None:
        yield
        return
    tuned(MMAP_THRESHOLD, FIRST)
    tuned(TRIM_THRESHOLD, 2 * FIRST)
    tuned(MMAP_MAX, PIECES)
    try:
        yield
    finally:
        tuned(MMAP_THRESHOLD, LAST)
        tuned(TRIM_THRESHOLD, 2 * LAST)
        tuned(MMAP_MAX, FIRST_PIECES)


def _mallopt() -> Callable[[int, int], int] | None:
    """Of glibc; None where it is another malloc, or has been tuned from outside."""
    if any(name in os.environ for name in SETTINGS):
        return None
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):  # no such thing on this system
        return None
    if not hasattr(library, "gnu_get_libc_version"):
        return None
    tuned: Callable[[int, int], int] = library.mallopt
    return tuned
