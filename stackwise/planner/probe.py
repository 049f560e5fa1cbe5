"""What calibration measures: a name, a size, the work of one call, and what makes the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Probe:
    """One thing to measure.

    Attributes:
        name: Of the curve that it is a point of: `matmul/float32`.
        size: Where on the curve.
        work: Of one call, in the curve's unit.
        unit: Of the work.
        make: Gives what is to be called anew before each timing, outside of the clock; that gives
            what is timed.
    """

    name: str
    size: float
    work: float
    unit: str
    make: Callable[[], Callable[[], Run]]


def again(do: Run) -> Callable[[], Run]:
    """For what needs no preparation."""
    return lambda: do
