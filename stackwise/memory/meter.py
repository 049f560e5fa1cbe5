"""What memory is really used: anonymous bytes of this process, or of the card.

The peak on a CPU is the kernel's high-water mark of resident memory, reset per stage through
`/proc/self/clear_refs`, above a baseline taken before the rack was built, less what is mapped from
files. On other systems than Linux there is no such mark and the peak is None.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def status_bytes(*keys: str) -> dict[str, int]:
    """The named fields of /proc/self/status (`VmHWM`, `RssAnon`, ...) in bytes."""
    found = {}
    for line in STATUS.read_text().splitlines():
        key, _, rest = line.partition(":")
        if key in keys:
            found[key] = int(rest.split()[0]) * 1024
    return found


class Meter:
    """Peak bytes above a baseline, on the CPU or a CUDA card."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.baseline = 0
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.baseline = torch.cuda.memory_allocated()
        elif STATUS.exists():
            release_free_memory()
            self.baseline = status_bytes("RssAnon")["RssAnon"]

    def reset(self) -> None:
        """Begin a new peak."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif STATUS.exists():
            release_free_memory()
            Path("/proc/self/clear_refs").write_text("5")

    def peak_bytes(self) -> int | None:
        """The highest use since `reset`, above the baseline; None where it cannot be known."""
        if self.cuda:
            return torch.cuda.max_memory_allocated() - self.baseline
        if not STATUS.exists():
            return None
        now = status_bytes("VmHWM", "RssFile", "RssShmem")
        return max(0, now["VmHWM"] - now["RssFile"] - now["RssShmem"] - self.baseline)


def release_free_memory() -> None:
    """Hand freed heap back to the system, so that an earlier peak does not hide a later one."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
