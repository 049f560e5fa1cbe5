"""How far plans were off where both were known: the error bars of a plan.

They come from the file that `stackwise doctor` wrote on this machine, if the plan is for it; else
from `bars.json`, which ships: what `benchmarks/plan_memory.py` and `benchmarks/plan_time.py`
measured on a CPU over the grids that they declare. Plans for cards are shown with those of the CPU,
and say so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from stackwise.planner.doctor.record import SMALL, Bar, device_name, error_bars
from stackwise.planner.hardware import THIS
from stackwise.planner.units import percent

if TYPE_CHECKING:
    from stackwise.planner.hardware import Hardware


@dataclass(frozen=True)
class ErrorBars:
    """How far plans were off.

    Attributes:
        peak: Of memory peaks of `SMALL` or more; None where none was measured.
        time: Of step times; the same.
        where: On what they were measured.
    """

    peak: Bar | None
    time: Bar | None
    where: str

    def __str__(self) -> str:
        kinds = (("memory", self.peak), ("time", self.time))
        return f"{'; '.join(off_by(*each) for each in kinds)} on {self.where}"

    def of_peak(self, planned: int) -> Bar | None:
        """That of a peak; none of those that are too small."""
        return self.peak if planned >= SMALL else None


def off_by(name: str, bar: Bar | None) -> str:
    """One of the two in words."""
    if bar is None:
        return f"{name} not compared yet"
    over, under = percent(bar.over_frac), percent(bar.under_frac)
    return f"{name} {over} too much to {under} too little in {bar.figures} plans"


def between(planned: float, bar: Bar | None) -> tuple[float, float]:
    """What may be measured where so much is planned."""
    if bar is None:
        return planned, planned
    return planned / (1 + bar.over_frac), planned / (1 - bar.under_frac)


@cache
def shipped() -> ErrorBars:
    """What the benchmarks measured."""
    text = resources.files("stackwise.planner").joinpath("bars.json").read_text("utf-8")
    facts = json.loads(text)
    peak, time = (Bar(**facts[name]) if facts[name] else None for name in ("peak", "time"))
    return ErrorBars(peak, time, facts["device"])


def bars_for(hardware: Hardware) -> ErrorBars:
    """The error bars of plans for a machine.

    Raises:
        DoctorError: If the doctor's file on this machine is damaged.
    """
    if hardware.name == THIS:
        device = device_name(hardware.kind)
        own = (error_bars() or {}).get(device)
        if own is not None:
            return ErrorBars(own.peak, own.time, device)
    return shipped()
