"""Memory to read into: whole pages, used again and again, and pinned for copies to a card."""

from __future__ import annotations

import mmap

import torch
from torch import Tensor


def pages(count: int) -> Tensor:
    """`count` bytes of memory of their own, uint8, aligned to pages."""
    return torch.frombuffer(mmap.mmap(-1, max(count, 1)), dtype=torch.uint8)[:count]


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
