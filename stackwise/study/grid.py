"""The same learning-rate grid for every arm, and what it cost.

Each arm trains at every rate of the grid on a seed of its own, to the end of its budget, and takes
the rate with the lowest held-out loss; then all its seeds train at that. The seed is none of the
study's, so that no seed that is reported was chosen for being good. It is the same held-out text,
though: a grid of a few rates chooses little by that, and every arm the same.

A best rate at the edge of the grid says that a better one may lie outside, and is flagged.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from stackwise.errors import ExperimentError, short
from stackwise.runs import Run
from stackwise.study.arms import Arm

TIMES = (0.5, 1.0, 2.0)  # of each rate that an arm names
TUNING_SEED = 1000  # none that one would choose for a study, so that adding seeds changes no rate
KEY = "optim.lr"
MOST_RATES = 100
MOST = 1e30  # beyond any rate, and within what a float holds
Grid = Mapping[str, Sequence[float]] | Sequence[float] | None


class Tried(NamedTuple):
    """One rate of one arm's grid."""

    arm: str
    rate: float
    seed: int
    run: Run | None


def rates_of(lr_grid: Any, arms: Sequence[Arm], keys: Sequence[str]) -> tuple[float, ...]:
    """The rates of the grid, rising; nothing where there is none.

    Args:
        lr_grid: Rates; `{"times": ...}` for multiples of each rate that an arm names; None for no
            grid; or "default", for half, once and twice those rates, and none where they are what
            varies.
        arms: The arms.
        keys: What varies.

    Raises:
        ExperimentError: If it is none of these, or the rates themselves are what varies.
    """
    varies = any(key == KEY for key in keys)
    if lr_grid is None or (lr_grid == "default" and varies):
        return ()
    if varies:
        raise ExperimentError(
            "lr_grid: is tried on every arm, and optim.lr is what varies; leave one of them out"
        )
    if lr_grid == "default":
        lr_grid = {"times": TIMES}
    if isinstance(lr_grid, Mapping):
        if set(lr_grid) != {"times"}:
            raise ExperimentError(
                f"lr_grid: {short(dict(lr_grid))} has another key than times, as in "
                "{'times': (0.5, 1, 2)}"
            )
        own = dict.fromkeys(arm.experiment.optim.lr for arm in arms)
        found = [times * rate for rate in own for times in _numbers(lr_grid["times"])]
    else:
        found = _numbers(lr_grid)
    return tuple(sorted(set(found)))


def _numbers(values: Any) -> list[float]:
    """Numbers over 0, one or more."""
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
        raise ExperimentError(
            f"lr_grid: {short(values)} is no list of learning rates, as (1e-3, 2e-3) is; None for "
            "no grid"
        )
    if len(values) > MOST_RATES:
        raise ExperimentError(f"lr_grid: {len(values)} rates; give {MOST_RATES} at most")
    for value in values:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        if not (fits and 0 < value < MOST):
            raise ExperimentError(f"lr_grid: {short(value)} must be a number over 0")
    return [float(value) for value in values]


def seed_for_tuning(seeds: Sequence[int]) -> int:
    """The seed that rates are tried on: the first from 1000 on that is none of the study's."""
    return next(seed for seed in range(TUNING_SEED, TUNING_SEED + len(seeds) + 1)
                if seed not in seeds)  # fmt: skip


def loss_of(run: Run | None) -> float:
    """What a run came to: bits per byte, else nats per token; infinite if it came to nothing."""
    found = {} if run is None else run.result()
    for key in ("bits_per_byte", "loss"):
        value = found.get(key)
        if isinstance(value, int | float):
            return float(value) if math.isfinite(value) else math.inf
    return math.inf


def best_rates(tried: Sequence[Tried]) -> dict[str, float]:
    """The rate with the lowest held-out loss, of each arm of which one came to anything.

    Of equal ones the lowest rate.
    """
    found: dict[str, float] = {}
    for name in dict.fromkeys(each.arm for each in tried):
        mine = [(loss_of(each.run), each.rate) for each in tried if each.arm == name]
        loss, rate = min(mine)
        if math.isfinite(loss):
            found[name] = rate
    return found


def at_the_edge(tried: Sequence[Tried]) -> dict[str, str]:
    """The arms whose best rate is the lowest or the highest that was tried."""
    said = {}
    for name, rate in best_rates(tried).items():
        edge = edge_of_grid(rate, [each.rate for each in tried if each.arm == name])
        if edge is not None:
            said[name] = edge
    return said


def edge_of_grid(rate: float, rates: Collection[float]) -> str | None:
    """Whether a rate is the `lowest` or the `highest` of several; None if it is neither."""
    if min(rates) == max(rates) or min(rates) < rate < max(rates):
        return None
    return "lowest" if rate == min(rates) else "highest"


def tuning_flops(tried: Sequence[Tried]) -> dict[str, float]:
    """FLOPs that each arm's grid took, rates that diverged included as far as they came."""
    found: dict[str, float] = {}
    for each in tried:
        found[each.arm] = found.get(each.arm, 0.0) + flops_of(each.run)
    return found


def flops_of(run: Run | None) -> float:
    """What a run has spent by now."""
    if run is None:
        return 0.0
    done = run.result().get("flops")
    if isinstance(done, int | float):
        return float(done)
    steps = run.metrics()
    return float(steps["flops"].max()) if len(steps) else 0.0
