"""What a sampler is given, and what a registry entry says about one.

A sampler is a function from a task and its parameters to the ids after each step: it fills the
positions of `task.fill_BT`, all of which read [MASK] when it begins, and touches nothing else. It
may raise before the first step, and must leave none of them masked after the last. How the steps
become what a caller sees is in `stream.py`.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stackwise.choice import Choice
from stackwise.sampling.view import View


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be filled, and how tokens are chosen.

    Attributes:
        rack: The rack, counted.
        ids_BT: Ids up to [MASK], (B, T), int64.
        fill_BT: The positions to fill, (B, T), bool.
        steps: Denoising steps, 1 or more; None for as many as the sampler takes by itself.
        temperature: Of choosing.
        generator: Of every random draw, on the CPU.
    """

    rack: View
    ids_BT: Tensor
    fill_BT: Tensor
    steps: int | None
    temperature: float
    generator: torch.Generator

    @property
    def most(self) -> int:
        """Masks of the sample that has most of them."""
        return int(self.fill_BT.sum(1).max()) if self.fill_BT.numel() else 0

    def masked(self, ids_BT: Tensor) -> Tensor:
        """Which of the positions are masked still, (B, T)."""
        return self.fill_BT & (ids_BT == self.rack.mask_id)

    def uniform(self) -> Tensor:
        """A number in [0, 1) for every token, (B, T), float64."""
        u_BT = torch.rand(self.ids_BT.shape, generator=self.generator, dtype=torch.float64)
        return u_BT.to(self.ids_BT.device)


@dataclass(frozen=True)
class Sampler(Choice):
    """An entry of `SAMPLERS`. `build` takes a `Task` and the parameters, and yields ids.

    Attributes:
        causal: Whether it reads left to right, for racks trained with a causal objective.
        takes_steps: Whether the caller decides the number of steps, given the parameters.
        law: Whose law its samples follow, with a rack that knows every conditional.
        forwards: How many reads of a sample it takes, in words.
        source: Where it was published.
    """

    causal: bool = False
    takes_steps: Callable[[Any], bool] = lambda params: True
    law: str = ""
    forwards: str = ""
    source: str = ""
