"""The stages of a run as the clock has decided of them: how long they are, and at which rates.

All here is a pure function of the stages that a run was launched with and of its decisions
(`pacing.py`), so that a run that is killed or repeated comes to the same bits.

What is left of a learning-rate schedule is laid over what is left of the stages that share it.
Where it is flat (`wsd`, before its decay) it goes on where it would stand had the new length been
planned from the beginning, so that only the beginning of the decay moves.

Shapes: S stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stackwise.budget import steps_of
from stackwise.by_stage import step_tokens
from stackwise.pacing import Decision, Ints, scaled
from stackwise.stage import Leg, Stage
from stackwise.training.rates import along

if TYPE_CHECKING:
    from stackwise.config import Experiment, Optim


class Course:
    """What the clock changes of stages; a stage's other values stay.

    Args:
        exp: The experiment.
        launched: The stages as the run was launched with them.
    """

    def __init__(self, exp: Experiment, launched: Sequence[Stage]) -> None:
        self.optim: Optim = exp.optim
        self.launched_S: Ints = np.array([steps_of(exp, stage) for stage in launched])
        self.sizes_S: Ints = np.array([step_tokens(exp, stage) for stage in launched])
        shared = [i for i, stage in enumerate(launched) if stage.lr != "per_stage"]
        self.shared: Ints = np.array(shared, dtype=np.int64)
        self.steps_S = self.launched_S.copy()
        self.spans_S2 = np.array([stage.lr_span for stage in launched])
        self.places_S2 = np.array([stage.progress for stage in launched])
        self.legs = {i: each for i, s in enumerate(launched) if (each := s.legs) is not None}
        self.factor = 1.0

    def take(self, decision: Decision) -> None:
        """Follow one more decision."""
        number, step, before = decision.stage, decision.step, int(self.steps_S[decision.stage])
        if decision.steps == before and decision.factor == self.factor:
            return
        groups = [self.shared] if len(self.shared) and self.shared[-1] >= number else []
        if decision.steps != before and number not in self.shared:
            groups.append(np.array([number]))
        stands = [self._stands(group, number, step) for group in groups]
        self.steps_S[number], self.factor = decision.steps, decision.factor
        self.steps_S[number + 1 :] = scaled(self.launched_S[number + 1 :], decision.factor)
        for group, at in zip(groups, stands, strict=True):
            self._lay(group, at, number, step, before)
        edges = np.cumsum(self.steps_S * self.sizes_S)
        ends_S = edges / edges[-1]
        self.places_S2[number:, 1] = ends_S[number:]
        self.places_S2[number + 1 :, 0] = ends_S[number:-1]
        self.places_S2[number, 0] = ends_S[number - 1] if number else 0.0

    def _stands(self, group: Ints, number: int, step: int) -> float:
        """Where the schedule of a group stands after `step` steps of stage `number`."""
        if number not in group:
            before = group[group < number]
            if not len(before):
                return float(self.spans_S2[group[0], 0])
            number = int(before[-1])
            step = int(self.steps_S[number])
        return along(self.legs.get(number), self._span(number), step, int(self.steps_S[number]))

    def _lay(self, group: Ints, stands: float, number: int, step: int, was: int) -> None:
        """Lay what is left of one schedule over what is left of the stages of a group."""
        tokens, left = self.steps_S * self.sizes_S, group[group >= number]
        done, rest = int(tokens[group[group < number]].sum()), tokens[left]
        if left[0] == number:
            done += step * int(self.sizes_S[number])
            rest[0] -= step * int(self.sizes_S[number])
        first, last = float(self.spans_S2[group[0], 0]), float(self.spans_S2[group[-1], 1])
        passed = np.cumsum(rest)
        share = first + (last - first) * done / (done + int(passed[-1]))
        at = moved(self.optim, stands, share) if done else stands
        ends = at + (last - at) * (passed / passed[-1])
        ends[-1] = last
        begins = np.concatenate([[at], ends[:-1]])
        if left[0] == number and step:
            self._bend(number, step, was, float(begins[0]), float(max(begins[0], ends[0])))
            left, begins, ends = left[1:], begins[1:], ends[1:]
        self.spans_S2[left, 0], self.spans_S2[left, 1] = begins, ends

    def _bend(self, number: int, step: int, was: int, begin: float, end: float) -> None:
        """Let a stage's schedule go another way from a step on."""
        start, planned = self._span(number)
        first = Leg(step=0, steps=was, begin=start, end=planned)
        leg = Leg(step=step, steps=int(self.steps_S[number]), begin=begin, end=end)
        self.legs[number] = (*self.legs.get(number, (first,)), leg)
        self.spans_S2[number, 1] = end

    def _span(self, number: int) -> tuple[float, float]:
        start, end = self.spans_S2[number].tolist()
        return start, end

    def stages(self, launched: Sequence[Stage]) -> tuple[Stage, ...]:
        """The stages as they are by now."""
        tokens = (self.steps_S * self.sizes_S).tolist()
        return tuple(
            stage.model_copy(
                update={
                    "tokens": tokens[i],
                    "lr_span": self._span(i),
                    "progress": tuple(self.places_S2[i].tolist()),
                    "legs": self.legs.get(i),
                }
            )
            for i, stage in enumerate(launched)
        )


def paced(
    exp: Experiment, launched: Sequence[Stage], decisions: Sequence[Decision]
) -> tuple[Stage, ...]:
    """The stages of a run, as the clock has decided of them so far.

    Args:
        exp: The experiment.
        launched: As the run was launched with them.
        decisions: In order.
    """
    if not decisions:
        return tuple(launched)
    course = Course(exp, launched)
    for each in decisions:
        course.take(each)
    return course.stages(launched)


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


def as_begun(exp: Experiment, stage: Stage) -> Stage:
    """A stage at the greatest length that it was ever given: its cache's rows are made once."""
    if stage.legs is None:
        return stage
    longest = max(leg.steps for leg in stage.legs)
    return stage.model_copy(update={"tokens": longest * step_tokens(exp, stage)})
