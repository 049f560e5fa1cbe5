"""A budget that is a time: what was forecast, what the clock decided, and the stages that follow.

A decision is made between two steps, by the clock (`training/pacer.py`), and written down before it
has an effect. From then on it is data: everything here is a pure function of the stages that a run
was launched with and of its decisions, so that a run that is killed or repeated comes to the same
bits. What a decision says is two numbers: the steps of the stage in hand, and which part of its
first length each later stage gets.

What is left of a learning-rate schedule is laid over what is left of the stages that share it.
Where it is flat (`wsd`, before its decay) it goes on where it would stand had the new length been
planned from the beginning, so that only the beginning of the decay moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from pydantic import Field

from stackwise.budget import placed, steps_of
from stackwise.by_stage import step_tokens
from stackwise.choice import Section
from stackwise.probing import looks_between
from stackwise.stage import Leg, Stage
from stackwise.training.rates import position_at

if TYPE_CHECKING:
    from stackwise.config import Experiment, Optim

MOST_STEPS = 10**12  # of a stage
MOST_DECISIONS = 100_000
RESERVED = 1.1  # of what is forecast beside steps, so that it is not run into
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


def paced(
    exp: Experiment, launched: Sequence[Stage], decisions: Sequence[Decision]
) -> tuple[Stage, ...]:
    """The stages of a run, as the clock has decided of them so far.

    Args:
        exp: The experiment.
        launched: As the run was launched with them.
        decisions: In order.
    """
    made, factor = tuple(launched), 1.0
    for each in decisions:
        made, factor = relaid(exp, launched, made, each, factor), each.factor
    return made


def relaid(
    exp: Experiment,
    launched: Sequence[Stage],
    made: Sequence[Stage],
    decision: Decision,
    factor: float,
) -> tuple[Stage, ...]:
    """The stages after one more decision.

    Args:
        exp: The experiment.
        launched: As the run was launched with them.
        made: As they are before the decision.
        decision: What was decided.
        factor: That of the decision before.
    """
    number, step = decision.stage, decision.step
    before = steps_of(exp, made[number])
    if decision.steps == before and decision.factor == factor:
        return tuple(made)
    steps = [
        *(steps_of(exp, stage) for stage in made[:number]),
        decision.steps,
        *(scaled(steps_of(exp, each), decision.factor) for each in launched[number + 1 :]),
    ]
    tokens = [n * step_tokens(exp, stage) for n, stage in zip(steps, made, strict=True)]
    out = [s.model_copy(update={"tokens": n}) for s, n in zip(made, tokens, strict=True)]
    for group in groups(made, number, own=decision.steps != before):
        _lay(exp, made, out, group, number, step)
    places = [stage.progress for stage in placed(out)]
    return tuple(
        stage if i < number else stage.model_copy(update={"progress": places[i]})
        for i, stage in enumerate(out)
    )


def scaled(steps: int, factor: float) -> int:
    """The steps of a stage that has not begun."""
    return min(MOST_STEPS, max(1, math.floor(steps * factor)))


def groups(made: Sequence[Stage], number: int, *, own: bool) -> list[list[int]]:
    """The stages that share a schedule, and the one in hand, if it has one of its own that changes.

    Args:
        made: All stages.
        number: The one in hand.
        own: Whether its length changes.
    """
    shared = [i for i, stage in enumerate(made) if stage.lr != "per_stage"]
    alone = own and made[number].lr == "per_stage"
    return [*([[number]] if alone else []), *([shared] if shared and shared[-1] >= number else [])]


def _lay(
    exp: Experiment,
    made: Sequence[Stage],
    out: list[Stage],
    group: Sequence[int],
    number: int,
    step: int,
) -> None:
    """Lay what is left of one schedule over what is left of the stages of a group."""
    size = step_tokens(exp, made[number])
    done = sum(made[i].tokens or 0 for i in group if i < number)
    done += step * size if number in group else 0
    left = {i: out[i].tokens or 0 for i in group if i >= number}
    if number in left:
        left[number] -= step * size
    whole = sum(left.values())
    stands = _stands(exp, made, group, number, step)
    first = made[group[0]].lr_span[0]
    last = 1.0 if made[number].lr != "per_stage" or number not in group else made[number].lr_span[1]
    share = first + (last - first) * done / (done + whole)
    at = moved(exp.optim, stands, share) if done else stands
    begin, passed = at, 0
    for i, tokens in left.items():
        passed += tokens
        end = last if passed == whole else at + (last - at) * passed / whole
        if i == number and step:
            out[i] = _with_leg(out[i], made[i], steps_of(exp, made[i]), step, (begin, end), size)
        else:
            out[i] = out[i].model_copy(update={"lr_span": (begin, end)})
        begin = end


def _stands(
    exp: Experiment, made: Sequence[Stage], group: Sequence[int], number: int, step: int
) -> float:
    """Where the schedule of a group stands after `step` steps of stage `number`."""
    if number in group:
        return position_at(made[number], step, steps_of(exp, made[number]))
    before = [i for i in group if i < number]
    if not before:
        return made[group[0]].lr_span[0]
    count = steps_of(exp, made[before[-1]])
    return position_at(made[before[-1]], count, count)


def moved(optim: Optim, stands: float, share: float) -> float:
    """Where a schedule goes on: where it stands, or in its flat part where it would stand by now.

    Args:
        optim: Says which schedule it is.
        stands: Where it stands.
        share: Of its new length, what is done.
    """
    if optim.schedule != "wsd":
        return stands
    flat = (optim.warmup_frac, 1 - optim.decay_frac)
    if not flat[0] <= stands <= flat[1]:
        return stands
    return min(max(share, flat[0]), flat[1])


def _with_leg(
    stage: Stage, before: Stage, planned: int, step: int, span: tuple[float, float], size: int
) -> Stage:
    """A stage whose schedule goes another way from a step on."""
    start, end = before.lr_span
    first = Leg(step=0, steps=planned, begin=start, end=end)
    steps = (stage.tokens or 0) // size
    leg = Leg(step=step, steps=steps, begin=span[0], end=max(span))
    legs = (*(before.legs or (first,)), leg)
    return stage.model_copy(update={"legs": legs, "lr_span": (start, leg.end)})


def as_begun(exp: Experiment, stage: Stage) -> Stage:
    """A stage at the greatest length that it was ever given: its cache's rows are made once."""
    if stage.legs is None:
        return stage
    longest = max(leg.steps for leg in stage.legs)
    return stage.model_copy(update={"tokens": longest * step_tokens(exp, stage)})


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
        later = [scaled(n, factor) for n in self.launched[self.number + 1 :]]
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


GREATEST, LEAST, HALVINGS = 1e6, 1e-9, 60
