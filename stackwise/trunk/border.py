"""What passes from a trunk to the stacks that train, and from stack to stack within it.

Each stack of a trunk rounds its output to the dtype of `precision.border`, wherever it is computed:
in the step, ahead of it for a cache, or from an older cache. So the three give the same numbers.

Shapes: B samples, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stackwise.model.direction import Direction
from stackwise.model.workspace import workspace
from stackwise.trunk.rounding import round_to

if TYPE_CHECKING:
    from stackwise.config import Precision

Layer = Callable[..., Tensor]  # (x_BTD, causal=, time_B=) -> (B, T, D)


def border_of(precision: Precision) -> str:
    """The dtype that a trunk's stacks round their outputs to."""
    return precision.border or precision.compute


def rounded(x_BTD: Tensor, border: str) -> Tensor:
    """The nearest values of a border's dtype, in the dtype of the residual stream."""
    wide = torch.promote_types(x_BTD.dtype, torch.float32)
    if border == "float32" and wide == torch.float32:
        return x_BTD.to(wide)
    return round_to(x_BTD, border).to(wide)


def through(
    x_BTD: Tensor,
    stacks: Iterable[Iterable[Layer]],
    *,
    causal: Direction,
    border: str,
    time_B: Tensor | None = None,
) -> Tensor:
    """Run a trunk, stack by stack; with noise levels (B,) where the rack has its time as input."""
    with workspace():
        for blocks in stacks:
            for block in blocks:
                x_BTD = block(x_BTD, causal=causal, time_B=time_B)
            x_BTD = rounded(x_BTD, border)
    return x_BTD
