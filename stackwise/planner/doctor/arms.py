"""What a run computed, kept whole to be compared: losses, every gradient, every weight it moved.

An arm is a run of one experiment in one placement, in this process. Gradients are taken as autograd
gives them, before clipping, from a stage's second step on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stackwise.config import Experiment, Placement
from stackwise.model.frozen import FrozenLinear
from stackwise.planner.doctor.reference import become
from stackwise.training.run import train
from stackwise.training.step import StepNumbers
from stackwise.training.work import Work

Numbers = dict[str, Tensor]


@dataclass
class Arm:
    """What one run computed; `12 stacks.s0...` is a tensor of the twelfth step."""

    losses: Numbers = field(default_factory=dict)
    gradients: Numbers = field(default_factory=dict)
    weights: Numbers = field(default_factory=dict)
    kind: type[FrozenLinear] | None = None
    hooked: list[nn.Parameter] = field(default_factory=list)

    def on_step(self, work: Work, numbers: StepNumbers) -> None:
        """Keep what a step computed, and have the gradients of the next ones kept."""
        step = work.at.total_steps
        self.losses[f"{step} loss"] = torch.tensor(numbers.loss, dtype=torch.float64)
        for name, parameter in work.rack.named_parameters():
            if parameter.requires_grad:
                self.weights[f"{step} {name}"] = parameter.detach().cpu().clone()
                self._hook(work, name, parameter)
        if self.kind is not None:
            become(work.rack, self.kind)

    def _hook(self, work: Work, name: str, parameter: nn.Parameter) -> None:
        if any(parameter is other for other in self.hooked):
            return

        def keep(moved: Tensor) -> None:
            assert moved.grad is not None
            self.gradients[f"{work.at.total_steps + 1} {name}"] = moved.grad.detach().cpu().clone()

        parameter.register_post_accumulate_grad_hook(keep)
        self.hooked.append(parameter)  # and so no other one gets its address


def arm(exp: Experiment, place: Placement, kind: type[FrozenLinear] | None = None) -> Arm:
    """Train, and keep what it computes.

    Args:
        exp: A small experiment.
        place: Its placement.
        kind: What its frozen layers become after the first step of each stage.

    Raises:
        KeyboardInterrupt: If it was stopped.
    """
    made = Arm(kind=kind)
    run = train(exp, place, rerun=True, on_step=made.on_step)
    if run.state != "finished":
        raise KeyboardInterrupt
    return made


def difference(found: Arm, wanted: Arm) -> dict[str, Any]:
    """How far two arms are from each other.

    Returns:
        `equal`, to the last bit; and the largest relative distance of any tensor of the `losses`,
        `gradients` and `weights`, infinite where one has a tensor that the other has not.
    """
    parts = ("losses", "gradients", "weights")
    pairs = {part: (getattr(found, part), getattr(wanted, part)) for part in parts}
    return {
        "equal": all(same(*pair) for pair in pairs.values()),
        **{part: farthest(*pair) for part, pair in pairs.items()},
    }


def same(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether all tensors are there, and alike to the last bit."""
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name], wanted[name]) for name in wanted
    )


def farthest(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest distance of a tensor from its twin, relative to the twin's norm."""
    if found.keys() != wanted.keys():
        return float("inf")
    return max((distance(found[name], wanted[name]) for name in wanted), default=0.0)


def distance(found: Tensor, wanted: Tensor) -> float:
    """How far a tensor is from another, relative to the other's norm; infinite if no number."""
    found, wanted = found.detach().cpu().double(), wanted.detach().cpu().double()
    away = float((found - wanted).norm())
    if away == 0.0:
        return 0.0
    relative = away / max(float(wanted.norm()), 1e-300)
    return relative if relative == relative else float("inf")
