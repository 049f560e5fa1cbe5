"""Learning rates: a schedule over a stage, or over all stages that continue it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackwise.stage import Leg, Stage

if TYPE_CHECKING:
    from stackwise.config import Optim


def lr_at(optim: Optim, position: float) -> float:
    """The learning rate at `position` in [0, 1] of a schedule.

    Linear warm-up over `warmup_frac`; then `constant`; `linear` and `cosine` down to zero; or
    `wsd` (warmup-stable-decay, arXiv 2404.06395, there with an exponential end): flat, then linear
    to zero over `decay_frac`.
    """
    if position < optim.warmup_frac:
        return optim.lr * position / optim.warmup_frac
    rest = (position - optim.warmup_frac) / (1 - optim.warmup_frac)
    match optim.schedule:
        case "constant":
            return optim.lr
        case "linear":
            return optim.lr * (1 - rest)
        case "cosine":
            return optim.lr * 0.5 * (1 + math.cos(math.pi * rest))
        case "wsd":
            return optim.lr * min(1.0, (1 - position) / optim.decay_frac)


def stage_lr(optim: Optim, stage: Stage, step: int, steps: int) -> float:
    """The learning rate of step `step` of the `steps` of a stage, taken in the step's middle."""
    within = (step + 0.5) / (stage.legs[0].steps if stage.legs else steps)
    rate = lr_at(optim, position_at(stage, step + 0.5, steps))
    if stage.lr == "rewarm" and stage.lr_span[0] > 0 and within < optim.warmup_frac:
        rate *= within / optim.warmup_frac
    return rate


def position_at(stage: Stage, step: float, steps: int) -> float:
    """Where a stage's schedule stands after `step` of its steps: 0 to 1.

    Straight from one end of `lr_span` to the other, or along the legs of a stage whose length the
    clock has changed.
    """
    return along(stage.legs, stage.lr_span, step, steps)


def along(legs: Sequence[Leg] | None, span: tuple[float, float], step: float, steps: int) -> float:
    """The same of a stage's legs, if it has any, and its span."""
    for leg in reversed(legs or ()):
        if step >= leg.step:
            return leg.begin + (step - leg.step) / (leg.steps - leg.step) * (leg.end - leg.begin)
    start, end = span
    return start + step / steps * (end - start)
