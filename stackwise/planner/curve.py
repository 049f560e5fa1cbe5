"""A rate that depends on the size of what is done, between the sizes at which it is known.

Small pieces of work are slower per number than large ones, and on a CPU very large ones slower
again, when they leave the caches and take fresh pages.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from stackwise.errors import ExperimentError
from stackwise.report import program

Curve = tuple[tuple[float, float], ...]  # (size, work per second), sizes rising


class Curves(dict[str, Curve]):
    """Curves by name, of a machine that was measured; of one that was not, how to get it."""

    def __missing__(self, name: str) -> Curve:
        raise ExperimentError(
            f"--hardware: this machine was measured without {name!r}, as before a package was "
            f"installed; measure it again with: {program()} calibrate"
        )


def rate_at(curve: Curve, size: float) -> float:
    """Work per second at a size.

    Between two known sizes on a straight line in logarithms of both. Above the largest the rate is
    that of the largest; below the smallest it falls with the size, since what is left is the cost
    of the call: at half the size half the rate.

    Args:
        curve: One point or more.
        size: Over 0, in the curve's unit.
    """
    least, rate = curve[0]
    if size < least:
        return rate * (size / least if len(curve) > 1 else 1.0)
    return level_at(curve, size)


def level_at(curve: Curve, size: float) -> float:
    """What a curve has at a size; outside of what is known that of the nearest.

    Args:
        curve: One point or more.
        size: Over 0, in the curve's unit.
    """
    sizes = [point[0] for point in curve]
    if size <= sizes[0]:
        return curve[0][1]
    if size >= sizes[-1]:
        return curve[-1][1]
    above = bisect_left(sizes, size)
    (low, slow), (high, fast) = curve[above - 1], curve[above]
    part = math.log(size / low) / math.log(high / low)
    return math.exp((1 - part) * math.log(slow) + part * math.log(fast))


def seconds_for(curve: Curve, work: float, size: float | None = None) -> float:
    """Seconds of some work that is done in pieces of a size; None: all at once."""
    if work <= 0:
        return 0.0
    return work / rate_at(curve, work if size is None else size)
