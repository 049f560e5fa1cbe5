"""Whether an error says that memory ran out: Python's, or torch's on a CPU or a card."""

from __future__ import annotations

import sys

WORDS = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")


def ran_out(error: BaseException) -> bool:
    """Whether an error is of that kind."""
    if isinstance(error, MemoryError):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    # Of its allocator on a CPU torch has no class.
    return type(error) is RuntimeError and any(word in str(error) for word in WORDS)
