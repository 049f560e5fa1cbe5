"""Paired differences over a few seeds: their interval, and how many seeds a difference asks for.

Seed k of one arm is paired with seed k of another, so that what counts is the spread of the
differences. With few seeds Student's t is far from the normal: 4.30 standard errors at three seeds,
not 1.96. Its distribution, and the noncentral one, which gives the power of a test, are scipy's.
Held against tables in `tests/unit/test_paired_seeds_are_judged_by_students_t.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVEL, POWER = 0.95, 0.8
FEWEST, HEADLINE = 3, 8  # seeds that say anything; that a headline needs
MOST = 100_000


@dataclass(frozen=True)
class Paired:
    """The differences of one arm from another, seed by seed.

    Attributes:
        mean: Their mean; NaN where there is none.
        sd: Their standard deviation, by n - 1; NaN for fewer than two.
        low: Lower end of the interval for the true mean.
        high: Upper end.
        n: How many there are.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int


def paired(differences: Sequence[float], level: float = LEVEL) -> Paired:
    """Mean and interval of paired differences, by Student's t with n - 1 degrees of freedom.

    Args:
        differences: One for each seed; those that are not finite are left out.
        level: Share of such intervals that hold the true mean, in (0, 1).
    """
    found = [value for value in differences if math.isfinite(value)]
    n, nan = len(found), math.nan
    if not n:
        return Paired(nan, nan, nan, nan, 0)
    mean = math.fsum(found) / n
    if n < 2:
        return Paired(mean, nan, nan, nan, n)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in found) / (n - 1))
    half = edge_of(level, n - 1) * sd / math.sqrt(n)
    return Paired(mean, sd, mean - half, mean + half, n)


def edge_of(level: float, df: int) -> float:
    """The t that Student's t exceeds on neither side with probability `level`."""
    from scipy.stats import t  # which takes most of a second to load

    return float(t.ppf((1 + level) / 2, df))


def power(effect: float, sd: float, n: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test over n seeds sees a true mean difference.

    Args:
        effect: The true mean difference.
        sd: The true standard deviation of the differences, over 0.
        n: Seeds, 2 or more.
        level: One minus the test's level.
    """
    from scipy.stats import nct

    edge, shift = edge_of(level, n - 1), abs(effect) / sd * math.sqrt(n)
    return float(nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift))


def seeds_needed(
    effect: float, sd: float, *, level: float = LEVEL, wanted: float = POWER
) -> int | None:
    """The fewest seeds, three at least, with which a difference is seen with probability `wanted`.

    None where no number of seeds would do (no difference, or not known), or over 100,000.
    """
    if not (math.isfinite(effect) and math.isfinite(sd)) or effect == 0:
        return None
    if sd == 0:
        return FEWEST
    low, high = FEWEST - 1, FEWEST
    while power(effect, sd, high, level) < wanted:
        if high > MOST:
            return None
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if power(effect, sd, middle, level) < wanted else (low, middle)
    return high if high <= MOST else None
