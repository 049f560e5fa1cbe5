"""How far plans were off where both were known: the error bars of a plan.

They come from the file that `stackwise doctor` wrote on this machine, if the plan is for it; else
from `bars.json`, which ships: what the benchmarks `plan_memory.py` and `plan_time.py` measured on a
CPU over grids that they declare. Plans for cards are shown with those of the CPU, and say so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackwise.planner.hardware import Hardware


@dataclass(frozen=True)
class Bars:
    """The range of measured over planned.

    Attributes:
        peak: Lowest and highest of memory peaks.
        seconds: Lowest and highest of step times.
        said: Where they are from, in words.
    """

    peak: tuple[float, float]
    seconds: tuple[float, float]
    said: str

    def peak_between(self, planned: float) -> tuple[float, float]:
        """What a planned peak may be."""
        return planned * self.peak[0], planned * self.peak[1]

    def days_between(self, planned: float) -> tuple[float, float]:
        """What a planned time may be."""
        return planned * self.seconds[0], planned * self.seconds[1]


@cache
def shipped() -> Bars:
    """What the benchmarks measured."""
    text = resources.files("stackwise.planner").joinpath("bars.json").read_text("utf-8")
    facts = json.loads(text)
    said = f"in brackets: what {facts['cells']} plans were off by on {facts['machine']}"
    return Bars(tuple(facts["peak"]), tuple(facts["seconds"]), said)


def bars_for(hardware: Hardware) -> Bars:
    """The error bars of plans for a machine."""
    if hardware.name == "this":
        from stackwise.planner.doctor import error_bars

        own = error_bars()
        if own is not None:
            return own
    return shipped()
