"""A machine of round rates and a clock of one's own, so that what a time buys can be told.

Nothing sleeps: the clock moves by what was forecast of each piece of work, times how slow the
machine is just then.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

import stackwise as sw
from stackwise.planner.hardware import HARDWARE, Hardware
from stackwise.training import clock, run, saved, timing, watch
from stackwise.training.run import execute
from stackwise.training.start import create_run

from ...unit.planner.conftest import round_machine

BEGAN = 1000.0


@dataclass
class World:
    """Seconds that pass as a run works.

    Attributes:
        slow: How many times as long as forecast a piece of work takes, by the clock.
        seconds: The clock.
        steps: Seconds of each step that was taken, steps that were lost included.
    """

    slow: Callable[[float], float] = lambda seconds: 1.0
    seconds: float = BEGAN
    steps: list[float] = field(default_factory=list)
    at_last_step: float = 0.0

    def now(self) -> float:
        return self.seconds

    def spend(self, forecast: float) -> float:
        spent = forecast * self.slow(self.seconds)
        self.seconds += spent
        return spent

    def on_step(self, work: Any, numbers: Any) -> None:
        each = work.pacer.pace.forecasts[work.at.stage]
        self.at_last_step = self.seconds  # as the run counted it
        self.steps.append(self.spend(each.step))


@pytest.fixture
def machine(monkeypatch) -> Hardware:
    """What this machine is, as if it had been calibrated."""
    made = round_machine(memory_bytes=64e9, host_bytes=64e9, origin="measured")
    monkeypatch.setattr(timing, "hardware_called", lambda name: made)
    monkeypatch.setitem(HARDWARE, "round", made)
    return made


@pytest.fixture
def world(monkeypatch, machine) -> World:
    """The clock that runs go by."""
    found = World()
    monkeypatch.setattr(clock, "now", found.now)

    def costs(module: Any, name: str, key: str, number: Callable[..., int]) -> None:
        real = getattr(module, name)

        def timed(work: Any, *given: Any) -> Any:
            if work.pacer is not None:
                found.spend(getattr(work.pacer.pace.forecasts[number(work, *given)], key))
            return real(work, *given)

        monkeypatch.setattr(module, name, timed)

    costs(watch, "look", "look", lambda work, trainee: trainee.number)
    costs(saved, "commit", "save", lambda work, number, *rest: number)
    costs(run, "enter_stage", "enter", lambda work, number: number)
    costs(run, "leave_stage", "leave", lambda work, trainee: trainee.number)
    costs(run, "finish", "final", lambda work: -1)
    return found


def for_steps(
    exp: sw.Experiment, machine: Hardware, steps: int, place: sw.Placement | None = None
) -> sw.Experiment:
    """An experiment whose budget is the time that a machine takes for so many steps."""
    from stackwise.planner.timed import forecasts, seconds_in_all

    spent = exp.replace(budget={"tokens": steps * exp.optim.batch * exp.data.seq_len})
    made, place = sw.stages(spent), place or sw.Placement(device="cpu")
    each = forecasts(spent, place, made, machine, scored=exp.eval.final)
    return exp.replace(budget={"minutes": seconds_in_all(spent, place, made, each) / 60})


def repeat(run: sw.Run, place: sw.Placement) -> sw.Run:
    """A run of what another one was launched with, and of what the clock decided of it."""
    made = create_run(run.experiment, place, rerun=True)
    for name in ("stages.json", "pace.json"):
        shutil.copyfile(run.path / name, made.path / name)
    return execute(made)
