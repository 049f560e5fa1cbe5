"""What a step runs: block by block, or compiled a stretch of blocks at a time.

One graph over several blocks fuses a residual with the norm after it and is called once; final
norm, head and loss are a graph of their own. `benchmarks/step.py` prints what that is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec

import torch
from torch import Tensor

from stackwise.model.block import Block
from stackwise.model.rack import Rack
from stackwise.objective import loss_at

OPTIONS = {"cpp.enable_floating_point_contract_flag": "fast"}  # one rounding for a * b + c
LONGEST = 8  # blocks in a graph: compiling takes seconds for each

P = ParamSpec("P")
Layer = Callable[..., Tensor]  # (x_BTD, causal=) -> (B, T, D)
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

    def run(x_BTD: Tensor, *, causal: bool) -> Tensor:
        for block in blocks:
            x_BTD = block(x_BTD, causal=causal)
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


def head_of(rack: Rack, *, compiled: bool) -> Head:
    """Final norm, head and loss at N chosen positions: (x_ND, target_N, weight_N, positions).

    Compiled it is one graph for any N, since a batch hardly ever counts as many as the one before.
    """

    def run(x_ND: Tensor, target_N: Tensor, weight_N: Tensor, positions: int) -> Tensor:
        return loss_at(rack.logits(x_ND).float(), target_N, weight_N, positions)

    if not compiled:
        return run
    return compiled_alone(run, dynamic=True)


def grow_tables(rack: Rack, path: Sequence[str], length: int, device: torch.device) -> None:
    """Run a path once, so that tables which grow on first use are there before it is compiled."""
    x_BTD = torch.zeros(1, length, rack.shape.d_model, device=device)
    with torch.no_grad():
        for block in rack.blocks(path):
            block(x_BTD, causal=False)
