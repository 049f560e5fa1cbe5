"""What a step runs: block by block, or compiled a stretch of blocks at a time.

One graph over several blocks fuses a residual with the norm after it and is called once; final
norm, head and loss are a graph of their own, as long as the logits are few; many are never held
whole (`chunked.py`). `benchmarks/step.py` prints what compiling is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec

import torch
from torch import Tensor

from stackwise.model.block import Block
from stackwise.model.direction import Direction
from stackwise.model.rack import Rack
from stackwise.objective import loss_at
from stackwise.training.chunked import LOGITS_AT_ONCE, chunked_loss
from stackwise.training.scratch import Scratch

OPTIONS = {"cpp.enable_floating_point_contract_flag": "fast"}  # one rounding for a * b + c
LONGEST = 8  # blocks in a graph: compiling takes seconds for each

P = ParamSpec("P")
Layer = Callable[..., Tensor]  # (x_BTD, causal=, time_B=) -> (B, T, D)
Head = Callable[[Tensor, Tensor, Tensor, int], Tensor]


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

    def run(x_BTD: Tensor, *, causal: Direction, time_B: Tensor | None = None) -> Tensor:
        for block in blocks:
            x_BTD = block(x_BTD, causal=causal, time_B=time_B)
        return x_BTD

    return compiled_alone(run)


def compiled_alone(
    function: Callable[P, Tensor], dynamic: bool | None = None
) -> Callable[P, Tensor]:
    """Compile a function, with a graph cache of its own; torch's overloads leave that out."""
    made: Callable[P, Tensor] = torch.compile(  # type: ignore[call-overload]
        function, dynamic=dynamic, isolate_recompiles=True, options=OPTIONS
    )
    return made


def head_of(rack: Rack, *, compiled: bool, scratch: Scratch | None = None) -> Head:
    """Final norm, head and loss at N chosen positions: (x_ND, target_N, weight_N, positions).

    Compiled it is one graph for any N, since a batch hardly ever counts as many as the one before.
    Where the logits would be many they are never held whole, and nothing is compiled.

    Args:
        rack: Whose head.
        compiled: Compile it.
        scratch: Lends memory for the gradient of a weight of the head's own.
    """

    def whole(x_ND: Tensor, target_N: Tensor, weight_N: Tensor, positions: int) -> Tensor:
        return loss_at(rack.logits(x_ND).float(), target_N, weight_N, positions)

    small = compiled_alone(whole, dynamic=True) if compiled else whole
    own = rack.head.weight
    take = None if scratch is None or own is None else partial(scratch.take, own)

    def run(x_ND: Tensor, target_N: Tensor, weight_N: Tensor, positions: int) -> Tensor:
        if len(x_ND) * rack.vocab <= LOGITS_AT_ONCE:
            return small(x_ND, target_N, weight_N, positions)
        features_ND, weight_VD = rack.head.features(x_ND), rack.head.weight_of(rack.embedding.table)
        scale_N = weight_N / positions
        return chunked_loss(features_ND, weight_VD, rack.head.bias, target_N, scale_N, take)

    return run


def grow_tables(rack: Rack, path: Sequence[str], length: int, device: torch.device) -> None:
    """Run a path once, so that tables which grow on first use are there before it is compiled."""
    ids_BT = torch.zeros(1, length, dtype=torch.int64, device=device)
    with torch.no_grad():
        rack.hidden(ids_BT, path=path)
