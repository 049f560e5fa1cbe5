"""What a step runs: block by block, or compiled a stretch of blocks at a time.

One graph over several blocks fuses a residual with the norm after it and is called once; 8 blocks
of the toy take 10 % less time so than each by itself (`benchmarks/step.py` prints both).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stackwise.model.block import Block
from stackwise.model.rack import Rack

LONGEST = 8  # blocks in a graph: compiling takes seconds for each

Layer = Callable[..., Tensor]  # (x_BTD, causal=) -> (B, T, D)


def layers(rack: Rack, path: Sequence[str], *, compiled: bool, single: bool) -> tuple[Layer, ...]:
    """The blocks of a path, in order, as what is called.

    Args:
        rack: Holds the stacks of `path`.
        path: Stacks, in order.
        compiled: Compile stretches of them.
        single: Every block by itself, for checkpointing.
    """
    blocks = list(rack.blocks(path))
    if not compiled:
        return tuple(blocks)
    size = 1 if single else LONGEST
    return tuple(stretch(blocks[i : i + size]) for i in range(0, len(blocks), size))


def stretch(blocks: Sequence[Block]) -> Layer:
    """Consecutive blocks as one compiled function."""

    def run(x_BTD: Tensor, *, causal: bool) -> Tensor:
        for block in blocks:
            x_BTD = block(x_BTD, causal=causal)
        return x_BTD

    # A graph cache of its own for each stretch; torch 2.13's overloads leave the argument out.
    return torch.compile(run, isolate_recompiles=True)  # type: ignore[call-overload]


def grow_tables(rack: Rack, path: Sequence[str], length: int, device: torch.device) -> None:
    """Run a path once, so that tables which grow on first use are there before it is compiled."""
    x_BTD = torch.zeros(1, length, rack.shape.d_model, device=device)
    with torch.no_grad():
        for block in rack.blocks(path):
            block(x_BTD, causal=False)
