"""Whether an error says that memory ran out: the system's, Python's, torch's on a CPU or card."""

from __future__ import annotations

import errno
import sys

WORDS = ("can't allocate memory", "not enough memory", "out of memory", "start new thread")


def ran_out(error: BaseException) -> bool:
    """Whether an error is of that kind."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM  # a file that is to be mapped, a process
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # Of its allocator on a CPU torch has no class.
    return type(error) is RuntimeError and any(word in str(error) for word in WORDS)
