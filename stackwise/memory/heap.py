"""What malloc has handed out: on a CPU what a card's allocator counts of itself.

Resident memory says less of a step: glibc keeps what is freed, up to pieces of 72 MiB, and fills
the gaps as chance will have it, so that a process is larger than what is in use, up to twice at
widths of some hundreds. `in_use` is glibc's own sum; what a step takes on top and gives back is
added up from torch's record of it, kept while that step runs.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import autograd
from torch._C._profiler import _ExperimentalConfig

from stackwise.model.workspace import GIVEN_BACK, MAPPED_BYTES
from stackwise.trunk.pages import paged

PROBE_BYTES, PROBES = 1 << 20, 20
KEPT_BYTES = 1 << 29  # of free memory at the top of the heap
OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

profiler: Any = autograd  # its older functions: kineto, the newer, prints lines of its own


class MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc's malloc.h, in its order."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


@cache
def mallinfo2() -> Any:
    """The call; None where the C library has none (before glibc 2.33, or not glibc)."""
    call = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if call is not None:
        call.restype = MallInfo
    return call


def settle() -> None:
    """Have glibc keep what one step frees for the next, in this process from now on.

    By itself it gives the top of its heap back to the system, at 128 KiB in a new process and at
    up to 64 MiB in one that has run for a while, and pieces of 32 MiB always. The next step takes
    it again, and the system clears every page: a tenth of a step at a width of 2048, more where
    logits are large (`benchmarks/heap.py`). Where one of malloc's own variables says how it is to
    be, that holds.
    """
    call = getattr(ctypes.CDLL(None), "mallopt", None)
    if call is None or any(name in os.environ for name in OWN):  # not glibc, or as a user has it
        return
    if not call(M_MMAP_THRESHOLD, MAPPED_BYTES):
        call(M_MMAP_THRESHOLD, GIVEN_BACK)  # older ones
    call(M_TRIM_THRESHOLD, KEPT_BYTES)


def why_unknown() -> str | None:
    """Why it cannot be known what malloc has handed out; None where it can."""
    if mallinfo2() is None:
        return "this C library has no mallinfo2"
    for _ in range(PROBES):  # another thread may give something back meanwhile
        before = in_use()
        held = torch.empty(PROBE_BYTES, dtype=torch.uint8)
        if in_use() - before >= held.nbytes:
            return None
        del held
    return "tensors do not come from glibc's malloc here"


def in_use() -> int:
    """Bytes of this process: pieces of the heap, and what lies in pages of its own."""
    found = mallinfo2()()
    return int(found.uordblks) + int(found.hblkhd) + paged()


class Taken:
    """What was handed out while something was done.

    Attributes:
        most: The most bytes at once, above what was in use before; None if not known.
    """

    most: int | None = None


@contextmanager
def taken() -> Iterator[Taken]:
    """Add up what torch takes and gives back in this thread; unless it is profiled already.

    What was there before and is given back meanwhile is not taken off: torch knows no size of it.
    """
    found = Taken()
    if profiler._profiler_enabled():
        yield found
        return
    warn_unheard()
    begin()
    try:
        yield found
    finally:
        changes = end()
    now = most = 0
    for change in changes:
        now += change
        most = max(most, now)
    found.most = most


def begin() -> None:
    """Have torch keep a record of memory, and of nothing else: operators would take gigabytes."""
    cpu, options = profiler.ProfilerState.CPU, (False, True, False, False, False)
    profiler._enable_profiler_legacy(profiler.ProfilerConfig(cpu, *options, _ExperimentalConfig()))
    profiler._enable_record_function(False)


def end() -> list[int]:
    """Stop it; bytes that were taken, or given back, in their order."""
    profiler._enable_record_function(True)
    events = (event for thread in profiler._disable_profiler_legacy() for event in thread)
    return [event.cpu_memory_usage() for event in events if event.kind() == "memory_alloc"]


@cache
def warn_unheard() -> None:
    """Have torch give a warning where nobody hears it: it does so once in a thousand times.

    It is of memory that is given back and was there before, which is as it should be here.
    """
    held = torch.empty(1)
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # there is no standard error
        return
    try:
        os.dup2(nowhere, 2)
        begin()
        del held
        end()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
