"""A budget that is a time: what was forecast, what the clock decided, and how the rest is fitted.

A decision is made between two steps, by the clock (`training/pacer.py`), and written down before it
has an effect. What it says is two numbers: the steps of the stage in hand, and which part of its
first length each later stage gets. What stages become by that is in `course.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stackwise.choice import Section
from stackwise.probing import looks_between

Ints = NDArray[np.int64]

MOST_STEPS = 10**12  # of a stage
MOST_DECISIONS = 20_000
RESERVED = 1.1  # of what is forecast beside steps, so that it is not run into
GREATEST, LEAST = 1e6, 1e-9  # that a factor becomes
HALVINGS = 60
SLACK = 0.01  # of the time that is left, which may stay unused until the next decision


class Forecast(Section):
    """Seconds of a stage on the machine that it was planned for."""

    step: float = Field(gt=0, le=1e9, description="of a step")
    fill: float = Field(0.0, ge=0, le=1e9, description="of caching the trunk's output, per step")
    look: float = Field(0.0, ge=0, le=1e9, description="of a look at held-out text")
    save: float = Field(0.0, ge=0, le=1e9, description="of a checkpoint within it")
    enter: float = Field(0.0, ge=0, le=1e9, description="of giving new parts their weights")
    leave: float = Field(
        0.0, ge=0, le=1e9, description="of freezing, and the checkpoint at its end"
    )
    final: float = Field(0.0, ge=0, le=1e9, description="of the finished rack's score")


class Decision(Section):
    """What the clock decided after a step, and why."""

    stage: int = Field(ge=0, lt=10_000, description="in hand")
    step: int = Field(ge=0, le=MOST_STEPS, description="steps of it that were done")
    steps: int = Field(ge=1, le=MOST_STEPS, description="that it has from then on, those included")
    factor: float = Field(
        gt=0, le=1e9, description="part of its first length that each later stage has"
    )
    seconds: float = Field(ge=0, le=1e12, description="at work until then")
    speed: float = Field(gt=0, le=1e9, description="seconds of a step, over those forecast")


class Pace(Section):
    """A run's time, what was forecast of its stages, and what the clock decided since.

    Raises:
        ExperimentError: If the decisions are not in order, or are of stages that it has not.
    """

    seconds: float = Field(gt=0, le=1e12, description="the budget")
    hardware: str = Field(description="what the machine of the forecast is called")
    said: str = Field("", description="where its rates are from")
    low: float | None = Field(None, description="seconds at best, by how far plans were off")
    high: float | None = Field(None, description="seconds at worst")
    forecasts: tuple[Forecast, ...] = Field(min_length=1, description="one for each stage")
    decisions: tuple[Decision, ...] = Field((), max_length=MOST_DECISIONS)


def whole_pace(pace: Pace, stages: int) -> bool:
    """Whether it is that of a run of so many stages, and its decisions are in order."""
    points = [(each.stage, each.step) for each in pace.decisions]
    ordered = all(one < other for one, other in pairwise(points))
    ahead = all(each.step < each.steps and each.stage < stages for each in pace.decisions)
    return ordered and ahead and len(pace.forecasts) == stages


def scaled(steps_S: Ints, factor: float) -> Ints:
    """The steps of stages that have not begun."""
    return np.clip(np.floor(steps_S * factor), 1, MOST_STEPS).astype(np.int64)


@dataclass(frozen=True)
class Speeds:
    """How many times as long as forecast things take, by what was measured last."""

    step: float = 1.0
    fill: float = 1.0
    look: float = 1.0
    save: float = 1.0
    border: float = 1.0


@dataclass(frozen=True)
class Left:
    """What is left of a run between two of its steps.

    Attributes:
        forecasts: Of all stages.
        launched: Steps of all stages, as the run was launched with them.
        steps: The same as they are now.
        number: The stage in hand, or about to begin.
        step: Steps of it that are done.
        factor: The last decision's.
        points: Looks that are spread over the run.
        every: Seconds between checkpoints.
    """

    forecasts: Sequence[Forecast]
    launched: Sequence[int]
    steps: Sequence[int]
    number: int
    step: int
    factor: float
    points: int
    every: float

    def beside(self, speeds: Speeds) -> float:
        """Seconds of all that is left beside steps: looks, borders, the score at the end."""
        ends = list(accumulate(self.steps))
        whole, found = ends[-1], 0.0
        for i in range(self.number, len(self.steps)):
            each, done = self.forecasts[i], ends[i] - self.steps[i]
            done += self.step if i == self.number else 0
            found += looks_between(done, ends[i], whole, self.points) * each.look * speeds.look
            found += max(each.leave * speeds.border, each.save * speeds.save)
            if i > self.number or not self.step:
                found += each.enter * speeds.border
        return found + self.forecasts[-1].final * speeds.look

    def per_step(self, number: int, speeds: Speeds) -> float:
        """Seconds of a step of a stage, with its share of what comes every so many steps."""
        each = self.forecasts[number]
        seconds = each.step * speeds.step
        if number > self.number or not self.step:
            seconds += each.fill * speeds.fill
        return seconds + min(1.0, seconds / self.every) * each.save * speeds.save

    def counts(self, factor: float, *, grows: bool = True) -> list[int]:
        """Steps that are left of each stage from the one in hand on, were this the factor."""
        rest = self.steps[self.number] - self.step
        own = max(1, math.floor(min(rest * factor / self.factor, MOST_STEPS - self.step)))
        later = scaled(np.array(self.launched[self.number + 1 :], dtype=np.int64), factor).tolist()
        return [own if grows else min(own, rest), *later]

    def present(self) -> list[int]:
        """The same as they are now."""
        return [self.steps[self.number] - self.step, *self.steps[self.number + 1 :]]

    def seconds(self, counts: Sequence[int], speeds: Speeds) -> float:
        """Of all that is left, with so many steps of each stage."""
        each = (self.per_step(self.number + i, speeds) for i in range(len(counts)))
        steps = sum(n * seconds for n, seconds in zip(counts, each, strict=True))
        return steps + RESERVED * self.beside(speeds)

    def fitted(self, seconds: float, speeds: Speeds, *, grows: bool = True) -> tuple[int, float]:
        """Steps of the stage in hand, and the later ones' factor, so that the time is used up.

        Both stay where what is left fits and leaves next to nothing.

        Args:
            seconds: That are left.
            speeds: What is measured.
            grows: Whether the stage in hand may become longer.
        """
        taken = self.seconds(self.present(), speeds)
        if taken <= seconds <= taken + SLACK * seconds:
            return self.steps[self.number], self.factor
        costs = [self.per_step(self.number + i, speeds) for i in range(len(self.present()))]
        room = seconds - RESERVED * self.beside(speeds)

        def fits(factor: float) -> bool:
            counts = self.counts(factor, grows=grows)
            return sum(n * each for n, each in zip(counts, costs, strict=True)) <= room

        low, high = 0.0, self.factor
        while fits(high) and high < GREATEST:
            low, high = high, 2 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        factor = max(low, LEAST)
        if not grows and len(costs) == 1:
            factor = min(factor, self.factor)
        return self.step + self.counts(factor, grows=grows)[0], factor
