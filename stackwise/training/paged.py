"""State in unified memory, which a card's driver moves between card and host as there is room.

bitsandbytes makes such tensors (`get_paged`): they count as tensors of the CPU, their numbers are
read and written by the card's kernels, and pages that the card has no room for wait in the host's
memory. As there, tensors under 100,000 numbers are not worth it. bitsandbytes never gives such
memory back; here a piece that is not used any more serves the next tensor of its size, so that a
curriculum of many stages takes one stage's. On a CPU there is nothing to page.
"""

from __future__ import annotations

import ctypes
import math
import weakref

import torch
from torch import Tensor

LEAST_PAGED = 100_000  # numbers of a tensor, as in bitsandbytes' `get_state_buffer`
_FREE: dict[tuple[int, torch.device], list[int]] = {}  # addresses that are not used, by size


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros for a state: in unified memory beside a card, if they are worth it; else plain ones."""
    if device.type != "cuda" or math.prod(shape) < LEAST_PAGED:
        return torch.zeros(shape, dtype=dtype, device=device)
    address = _managed(math.prod(shape) * dtype.itemsize, device)
    return _over(address, shape, dtype, device)


def settle(device: torch.device) -> None:
    """Wait for a card to be done with what lies in unified memory, before a CPU may read it."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _managed(size: int, device: torch.device) -> int:
    """The address of memory of a size that nobody uses, new if there is none."""
    free = _FREE.setdefault((size, device), [])
    if free:
        return free.pop()
    from bitsandbytes.cextension import lib

    return int(lib.cget_managed_ptr(ctypes.c_size_t(size)))


def _over(address: int, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of zeros on memory, which is free again when the last view of it has gone."""
    size = math.prod(shape) * dtype.itemsize
    room = (ctypes.c_char * size).from_address(address)
    weakref.finalize(room, _FREE[size, device].append, address)
    return torch.frombuffer(room, dtype=dtype, count=math.prod(shape)).view(shape).zero_()
