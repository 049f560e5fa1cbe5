"""What is read off held-out curves: the FLOPs to a target, and the loss at a common budget.

A curve is what a run measured while it trained: the same held-out windows under the same noise at
every look and for every arm of a seed. Between two looks the loss is taken to be straight in the
logarithm of what was spent, as a power law nearly is over so short a way. Before the first look and
after the last one nothing is known, and NaN is said.

A point before a curve's end is of a run whose learning rate had not decayed yet. A run of that
budget would stand lower. So such a reading is marked, and `Study(both=True)` trains the runs that
it takes to do without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from stackwise.runs import Run


class Look(NamedTuple):
    """One held-out measurement."""

    tokens: float
    flops: float
    bits_per_byte: float


def curve_of(run: Run) -> list[Look]:
    """A run's held-out measurements, by what was spent; those of a noise band's share are none."""
    rows = run.evals().to_dict("records")
    looks = [
        Look(float(row["tokens"]), float(row["flops"]), float(row["bits_per_byte"]))
        for row in rows
        if isinstance(row.get("bits_per_byte"), int | float)
    ]
    return sorted(look for look in looks if math.isfinite(look.bits_per_byte))


def flops_to(curve: Sequence[Look], target: float) -> float:
    """The FLOPs at which a curve first comes down to a target, in bits per byte; NaN if never.

    Where it is there at the first look already, those of that look, which are too many.
    """
    points = [(look.flops, look.bits_per_byte) for look in curve]
    for at, (flops, bits) in enumerate(points):
        if bits > target:
            continue
        if at == 0 or bits == points[at - 1][1]:
            return flops
        before, above = points[at - 1]
        part = (above - target) / (above - bits)
        return math.exp(math.log(before) + part * (math.log(flops) - math.log(before)))
    return math.nan


def bits_at(curve: Sequence[Look], unit: str, spent: float, slack: float = 0.0) -> float:
    """Bits per byte where so much was spent; NaN before the first look and after the last.

    Args:
        curve: The measurements.
        unit: `tokens` or `flops`.
        spent: How much.
        slack: By how much the last look may lie before it, as by part of a step.
    """
    points = [(float(getattr(look, unit)), look.bits_per_byte) for look in curve]
    if not points or spent < points[0][0] or spent > points[-1][0] + slack:
        return math.nan
    for (before, above), (after, below) in pairwise(points):
        if before <= spent <= after:
            if after == before:
                return below
            part = math.log(spent / before) / math.log(after / before)
            return above + part * (below - above)
    return points[-1][1]


def spent_by(run: Run, unit: str) -> float:
    """What a finished run spent; NaN of one that is not."""
    value = run.result().get({"tokens": "trained_tokens"}.get(unit, unit))
    return float(value) if isinstance(value, int | float) else math.nan


def step_of(run: Run, unit: str) -> float:
    """What a step of a run's dearest stage spends."""
    tokens = run.experiment.optim.batch * run.experiment.data.seq_len
    if unit == "tokens":
        return float(tokens)
    return max(tokens * row["flops"] / row["tokens"] for row in run.plan() if row["tokens"])
