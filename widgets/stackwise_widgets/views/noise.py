"""How noisy the tokens of a stage are: a range of masked fractions, and the same in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from stackwise.objective import schedule_of
from stackwise.schedules import mask_ratio, schedule_kind
from stackwise_widgets.views.markup import percent_said

if TYPE_CHECKING:
    from stackwise import Experiment, Stage


class Noise(NamedTuple):
    """The masked fractions that a stage's samples have.

    Attributes:
        low: The least.
        high: The most.
        words: The same in words.
    """

    low: float
    high: float
    words: str


def noise_of(exp: Experiment, stage: Stage) -> Noise | None:
    """The noise of a stage; None where the objective masks nothing.

    Over diffusion time that is its band. Over training progress it is what the schedule gives
    from the beginning of the stage to its end.
    """
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if schedule is None:
        return None
    if schedule_kind(schedule.choice) == "time":
        return Noise(stage.band[0], stage.band[1], between(stage.band))
    low, high = (mask_ratio(schedule, part) for part in stage.progress)
    words = percent_said(low) if low == high else f"{percent_said(low)} to {percent_said(high)}"
    return Noise(min(low, high), max(low, high), words)


def between(band: Sequence[float]) -> str:
    """A band in words: `25 % to 50 %`."""
    low, high = band
    return f"{percent_said(low)} to {percent_said(high)}"


def path_at(stages: Sequence[Stage], masked_frac: float) -> Stage | None:
    """The stage whose path the finished rack runs at a masked fraction: the last that covers it."""
    covers = [s for s in stages if s.band[0] < masked_frac <= s.band[1]]
    return covers[-1] if covers else None
