"""Left to right, for racks trained causally: one token at a time.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor

from stackwise.choice import Params
from stackwise.sampling.choosing import choose

if TYPE_CHECKING:
    from stackwise.model.rack import Rack
    from stackwise.sampling.task import Task


class Autoregressive(Params):
    """One token at a time, left to right, for causal racks; everything is read again each time."""

    kind: Literal["autoregressive"] = "autoregressive"


def left_to_right(task: Task, params: Autoregressive) -> Iterator[Tensor]:
    """What `autoregressive` does with a task: one forward per masked column."""
    rack = cast("Rack", task.rack)
    yield from autoregressive(rack, task.ids_BT, params, 0, task.temperature, task.generator)


def autoregressive(
    rack: Rack,
    ids_BT: Tensor,
    params: Autoregressive,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Fill the masked columns left to right, each from what stands before it."""
    start_B1 = torch.full_like(ids_BT[:, :1], rack.start_id)
    for column in (ids_BT == rack.mask_id).any(0).nonzero()[:, 0].tolist():
        x_BTD = rack.hidden(torch.cat([start_B1, ids_BT[:, :column]], 1), causal=True)
        chosen_B = choose(rack.logits(x_BTD[:, -1]), temperature, generator)
        masked_B = ids_BT[:, column] == rack.mask_id
        ids_BT = ids_BT.clone()
        ids_BT[:, column] = torch.where(masked_B, chosen_B, ids_BT[:, column])
        yield ids_BT
