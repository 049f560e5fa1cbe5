"""One buffer that large dequantised weights pass through, instead of new memory for each.

From 32 MiB on, glibc takes memory from the system and gives it back each time, and the system
clears every page: that takes longer than dequantising, and a tenth of a bfloat16 product of 512
tokens (`benchmarks/formats.py`, `forward` beside `reused`). Inside `workspace` the layers of
`frozen.py` write such weights into the same memory, which is as large as the largest of them and is
given back at the end. Smaller ones get memory that is warm already, and an accelerator's allocator
keeps its own: there, and under fake tensors, nothing changes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from stackwise.model.codes import Shape
from stackwise.model.formats import room_for

MAPPED_BYTES = 32 << 20  # glibc's largest threshold for memory of its own mapping

_entered = threading.local()  # a thread's own: two threads may compute at once


@contextmanager
def workspace() -> Iterator[None]:
    """Let frozen linears of this thread, on the CPU, share one buffer. May be nested."""
    outer = getattr(_entered, "buffers", None)
    _entered.buffers = {} if outer is None else outer
    try:
        yield
    finally:
        _entered.buffers = outer


def room(like: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor | None:
    """The buffer, flat, for a weight of this shape; None where it gets memory of its own.

    Args:
        like: Says where: a tensor that the weight is made of.
        shape: Of the weight.
        dtype: Of the weight.
    """
    buffers: dict[torch.dtype, Tensor] | None = getattr(_entered, "buffers", None)
    if buffers is None or not like.is_cpu or isinstance(like, FakeTensor):
        return None
    if room_for(shape) * dtype.itemsize < MAPPED_BYTES:
        return None
    if dtype not in buffers or len(buffers[dtype]) < room_for(shape):
        buffers.pop(dtype, None)  # before the larger one is made
        buffers[dtype] = torch.empty(room_for(shape), dtype=dtype)
    return buffers[dtype]
