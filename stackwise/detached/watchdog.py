"""Whether a run hangs, and what is done then: it is killed, and goes on from its last checkpoint.

A run goes on while its steps, or its other work (`pulse.py`), go on; held, queued and finished ones
are not asked. A restart costs the steps since the last checkpoint and no bit, since a run that is
resumed comes to the same weights. One that never comes further is given up.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

from stackwise.errors import ExperimentError
from stackwise.runs import status
from stackwise.runs.control import orders
from stackwise.runs.metrics import steps_behind

STEPS = 10.0  # of the usual length, at least, before one counts as hanging
STARTING_SECONDS = 1800.0  # at least, for reading data and the last checkpoint
LOOK_SECONDS, LONGEST_LOOK = 0.2, 1.0


@dataclass(frozen=True)
class Watchdog:
    """When a launched run is started again.

    Attributes:
        minutes: Without a sign of work after which it hangs, or ten of its usual steps if those are
            longer; None: never.
        died: Whether it is started again when its process was ended by a signal, as the system does
            when memory runs out.
        times: How often without a new checkpoint between, before it is given up.
    """

    minutes: float | None = None
    died: bool = False
    times: int = 3

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise ExperimentError(f"watchdog: {self.minutes!r} minutes; give a number over 0")
        if self.times < 1:
            raise ExperimentError(f"watchdog: {self.times!r} times; give 1 or more")


def watchdog_of(given: Watchdog | float | None) -> Watchdog | None:
    """A watchdog, of minutes where only they are given.

    Raises:
        ExperimentError: If they are no such number.
    """
    if given is None or isinstance(given, Watchdog):
        return given
    return Watchdog(float(given))


class Watch:
    """Looks at one process that trains a run.

    Args:
        folder: The run's.
        rule: When it hangs.
    """

    def __init__(self, folder: Path, rule: Watchdog) -> None:
        self.folder, self.rule = folder, rule
        self.mark: tuple[object, ...] = ()
        self.waited, self.looked = 0.0, time.monotonic()

    def hangs(self) -> str | None:
        """Why it hangs; None while it does not.

        Of the time since the last look at most a second counts: when this process was held itself,
        the other one was, too.
        """
        now = time.monotonic()
        if self.rule.minutes is None or now - self.looked < LOOK_SECONDS:
            return None
        self.waited += min(now - self.looked, LONGEST_LOOK)
        self.looked, said = now, status.read(self.folder)
        mark = tuple(said.get(key) for key in ("state", "attempt", "step", "work", "pid"))
        if mark != self.mark or not self.is_to_work(said):
            self.mark, self.waited = mark, 0.0
        if self.waited <= self.patience(said):
            return None
        return f"no sign of work for {self.waited:.0f} s at step {said.get('step') or 0}"

    def is_to_work(self, said: dict[str, object]) -> bool:
        """Whether it trains, or is to: one that is held is not, until it is told to go on."""
        if said.get("state") != "paused":
            return said.get("state") in ("running", "starting")
        held = [order.command for order in orders(self.folder)]
        return bool(held) and held[-1] != "pause"

    def patience(self, said: dict[str, object]) -> float:
        """Seconds without a sign of work."""
        assert self.rule.minutes is not None
        least, step = 60 * self.rule.minutes, said.get("step_seconds")
        if said.get("state") == "starting":
            return max(least, STARTING_SECONDS)
        usual = step if isinstance(step, float) and math.isfinite(step) else 0.0
        return max(least, STEPS * usual)


class Restarts:
    """Counts how often a run was started again without a new checkpoint between.

    Args:
        folder: The run's.
        rule: How often it may be.
    """

    def __init__(self, folder: Path, rule: Watchdog) -> None:
        self.folder, self.rule = folder, rule
        self.step, self.count = -1, 0

    def allowed(self) -> bool:
        """Whether it may be once more; counts it."""
        step = steps_behind(self.folder)
        self.step, self.count = step, 1 + (self.count if step == self.step else 0)
        return self.count <= self.rule.times
