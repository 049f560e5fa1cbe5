"""The time that a run's process is at work, and how fast it is by that clock.

Time counts from opening the folder to the finished rack's score, all attempts together, without
pauses. Pieces of work are compared with what was forecast of them; what is decided by that stands
in `pacer.py`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from statistics import median

from stackwise.pacing import Forecast, Speeds

MOST, FEW = 1024, 4  # steps that a speed is the mean of
SOME = 9  # looks, or checkpoints, of which the middle one counts
FIRST = 2  # steps of a stage that are slower: tables grow, kernels are chosen
LEAST = 1e-9

now = time.monotonic


class Clock:
    """Seconds at work, those of earlier attempts included.

    Args:
        before: Of earlier attempts.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._before, self._began = before, now()
        self._held: float | None = None

    def seconds(self) -> float:
        """By now."""
        until = now() if self._held is None else self._held
        return self._before + until - self._began

    def at_least(self, seconds: float) -> None:
        """Take into account that earlier attempts were at work for so long."""
        self._before = max(self._before, seconds)

    def hold(self) -> None:
        """Stand still, while the run is paused."""
        self._held = now()

    def go_on(self) -> None:
        """Count again."""
        if self._held is not None:
            self._began += now() - self._held
            self._held = None


class Laps:
    """How long pieces of work take, over what was forecast of them.

    Args:
        clock: The time at work.
        forecasts: Of all stages.
        step: What steps took before, over what was forecast.
    """

    def __init__(self, clock: Clock, forecasts: Sequence[Forecast], step: float = 1.0) -> None:
        self._clock, self._forecasts = clock, forecasts
        self._number, self._taken, self._before = 0, 0, step
        self._steps: deque[float] = deque(maxlen=MOST)
        self._beside: dict[str, deque[float]] = {}  # over steps
        self._until = clock.seconds()

    def begin(self, number: int, *, border: bool) -> None:
        """A stage has been entered; what came since the last step was a border, if it is fresh."""
        spent, forecast = self.lap(), self._forecasts
        if border and self._taken:
            self._compare("border", spent, forecast[number - 1].leave + forecast[number].enter)
        self._number, self._taken = number, 0

    def lap(self) -> float:
        """Seconds since the last piece of work ended."""
        at = self._clock.seconds()
        spent, self._until = at - self._until, at
        return spent

    def step(self) -> None:
        """A step has been taken. The first ones of a stage count where there are no others."""
        over = max(self.lap() / self._forecasts[self._number].step, LEAST)
        self._taken += 1
        if self._taken > FIRST:
            self._steps.append(over)
        elif not self._steps:
            self._before = over

    def look(self) -> None:
        """Held-out text has been looked at."""
        self._compare("look", self.lap(), self._forecasts[self._number].look)

    def save(self) -> None:
        """A checkpoint has been written within the stage."""
        self._compare("save", self.lap(), self._forecasts[self._number].save)

    def speeds(self, rest: int) -> Speeds:
        """What is measured, over what was forecast.

        Looks, checkpoints and borders slow down as steps do; what was not measured yet is at least
        as slow as it was forecast.

        Args:
            rest: Steps that are left of the run: the fewer they are, the fewer the last ones of
                which the mean is taken, so that a machine that slows down is found out in time.
        """
        step = self._over(rest // 4)
        slow = {
            kind: step * median(self._beside[kind]) if kind in self._beside else max(step, 1.0)
            for kind in ("look", "save", "border")
        }
        return Speeds(step=step, fill=step, **slow)

    def _over(self, count: int) -> float:
        """The mean of so many last steps."""
        recent = [*self._steps][-max(FEW, count) :]
        return sum(recent) / len(recent) if recent else self._before

    def _compare(self, kind: str, spent: float, planned: float) -> None:
        if planned > 0:
            known = self._beside.setdefault(kind, deque(maxlen=SOME))
            known.append(spent / planned / self._over(FEW))
