"""One buffer that dequantised weights pass through, instead of new memory for each.

Large ones: from 32 MiB on, in a run from 72 (`memory/heap.py`), glibc takes memory from the system
and gives it back each time, and the system clears every page. That takes longer than dequantising,
and a tenth of a bfloat16 product of 512 tokens (`benchmarks/formats.py`, `forward` beside
`reused`). Inside `workspace` the layers of `frozen.py` write such weights into the same memory,
which is as large as the largest of them and is given back at the end.

Small ones glibc keeps when they are freed. What backward needs comes to lie in the gap, the next
weight does not fit any more, and the process grows with every stack that a gradient crosses. So a
run has them share a buffer, too, as long as it trains. What is left of the growth is measured in
`tests/integration/memory/test_peak_memory_does_not_grow_with_the_stacks.py`.

An accelerator's allocator keeps its own: there, and under fake tensors, nothing changes.
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

GIVEN_BACK = 32 << 20  # the largest threshold for memory of its own mapping that glibc takes itself
MAPPED_BYTES = 72 << 20  # a run's: over 2^24 logits in float32, the most at once

Buffers = dict[torch.dtype, Tensor]
_entered = threading.local()  # a thread's own: two threads may compute at once


@contextmanager
def workspace(*, small: bool = False) -> Iterator[None]:
    """Let frozen linears of this thread, on the CPU, share one buffer. May be nested.

    Args:
        small: For weights of less than `MAPPED_BYTES`, as a run keeps them; else for those of
            `GIVEN_BACK` and more.
    """
    name = "small" if small else "large"
    outer = getattr(_entered, name, None)
    setattr(_entered, name, {} if outer is None else outer)
    try:
        yield
    finally:
        setattr(_entered, name, outer)


def room(like: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor | None:
    """The buffer, flat, for a weight of this shape; None where it gets memory of its own.

    Args:
        like: Says where: a tensor that the weight is made of.
        shape: Of the weight.
        dtype: Of the weight.
    """
    size = room_for(shape) * dtype.itemsize
    buffers: Buffers | None = getattr(_entered, "small", None) if size < MAPPED_BYTES else None
    if buffers is None and size >= min(GIVEN_BACK, MAPPED_BYTES):
        buffers = getattr(_entered, "large", None)
    if buffers is None or not like.is_cpu or isinstance(like, FakeTensor):
        return None
    if dtype not in buffers or len(buffers[dtype]) < room_for(shape):
        buffers.pop(dtype, None)  # before the larger one is made
        buffers[dtype] = torch.empty(room_for(shape), dtype=dtype)
    return buffers[dtype]
