"""Left to right, for racks trained causally: one token at a time.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from stackwise.choice import Params
from stackwise.sampling.choosing import choose

if TYPE_CHECKING:
    from stackwise.sampling.task import Task
    from stackwise.sampling.view import View


class Autoregressive(Params):
    """One token at a time, left to right, for causal racks; each is read once, into a cache."""

    kind: Literal["autoregressive"] = "autoregressive"


def left_to_right(task: Task, params: Autoregressive) -> Iterator[Tensor]:
    """What `autoregressive` does with a task: one forward per masked column."""
    yield from autoregressive(task.rack, task.ids_BT, params, 0, task.temperature, task.generator)


def autoregressive(
    rack: View,
    ids_BT: Tensor,
    params: Autoregressive,
    steps: int,
    temperature: float,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Fill the masked columns left to right, each from what stands before it, read once."""
    start_B1, last_of = torch.full_like(ids_BT[:, :1], rack.start_id), rack.reading()
    for column in (ids_BT == rack.mask_id).any(0).nonzero()[:, 0].tolist():
        x_BD = last_of(torch.cat([start_B1, ids_BT[:, :column]], 1))
        chosen_B = choose(rack.logits(x_BD), temperature, generator)
        masked_B = ids_BT[:, column] == rack.mask_id
        ids_BT = ids_BT.clone()
        ids_BT[:, column] = torch.where(masked_B, chosen_B, ids_BT[:, column])
        yield ids_BT
