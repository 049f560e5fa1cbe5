"""Paired differences over a few seeds: their interval, and how many seeds a difference asks for.

Seed k of one arm is paired with seed k of another, so that what counts is the spread of the
differences. With few seeds Student's t is far from the normal: 4.30 standard errors at three seeds,
not 1.96. Both its distribution and the noncentral one, which gives the power of a test, are the
normal averaged over the law of the estimated standard deviation (Johnson, Kotz, Balakrishnan,
Continuous Univariate Distributions 2, chapters 28 and 31). Held against tables in
`tests/unit/test_paired_seeds_are_judged_by_students_t.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

POINTS = 4001  # of Simpson's rule; the integrand is smooth, so that rounding is what is left
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
    half = t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    return Paired(mean, sd, mean - half, mean + half, n)


def t_at_most(t: float, df: int, shift: float = 0.0) -> float:
    """P(T <= t) for Student's t, noncentral by `shift`.

    T = (Z + shift) / S, where S squared is chi-squared over its `df` degrees of freedom: the normal
    distribution at t s - shift, averaged over the density of s.
    """
    width = 12 / math.sqrt(2 * df)
    s_N = torch.linspace(max(0.0, 1 - width), 1 + width, POINTS, dtype=torch.float64)
    scale = math.log(2) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    density_N = torch.exp(scale + torch.xlogy(torch.tensor(df - 1.0), s_N) - df * s_N**2 / 2)
    weight_N = torch.full_like(s_N, 2.0)
    weight_N[1::2], weight_N[0], weight_N[-1] = 4.0, 1.0, 1.0
    values_N = torch.special.ndtr(t * s_N - shift) * density_N * weight_N
    return float(values_N.sum() * (s_N[1] - s_N[0]) / 3)


@cache
def t_quantile(p: float, df: int) -> float:
    """The t below which Student's t lies with probability p in [0.5, 1), by bisection."""
    low, high = 0.0, 1.0
    while t_at_most(high, df) < p:
        low, high = high, 2 * high
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if t_at_most(middle, df) < p else (low, middle)
    return high


def power(effect: float, sd: float, n: int, level: float = LEVEL) -> float:
    """Probability that a two-sided paired t test over n seeds sees a true mean difference.

    Args:
        effect: The true mean difference.
        sd: The true standard deviation of the differences, over 0.
        n: Seeds, 2 or more.
        level: One minus the test's level.
    """
    edge, shift = t_quantile((1 + level) / 2, n - 1), abs(effect) / sd * math.sqrt(n)
    return 1 - t_at_most(edge, n - 1, shift) + t_at_most(-edge, n - 1, shift)


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
