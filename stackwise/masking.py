"""Which masking goes with which objective, and the noise bands of the stacks.

The matrix of what is allowed is data; everything else is refused with a reason. Bands tie noise to
depth: edges in mask probability, 0 = e0 < e1 < ... < en = 1, one band (low, high] per stack, the
heaviest for the leftmost stack. Because the bound on the likelihood is a sum over time, the bands'
losses add up to it. The schedules themselves are in `schedules.py`, the random draws in `draws.py`,
the corruption of tokens in `objective.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from stackwise.bell import Bell, bell_times
from stackwise.choice import Params
from stackwise.schedules import (
    Constant,
    Linear,
    Schedule,
    mask_ratio,
    names_of,
    schedule_kind,
    time_schedule,
)
from stackwise.stage import FULL_BAND, not_rising

if TYPE_CHECKING:
    from stackwise.config import Masking

__all__ = [
    "DEFAULT_SCHEDULES",
    "MATRIX",
    "Bands",
    "Row",
    "Sampling",
    "Schedule",
    "band_edges",
    "check_band",
    "check_bands_serve",
    "check_masking",
    "mean_mask_frac",
    "stack_bands",
    "unserved",
]

Sampling = Literal["antithetic", "iid", "stratified_k", "bell"]
Bands = Literal["equal_mass", "linear", "exponential"] | tuple[float, ...]

WIDEST_OVER_NARROWEST = 16.0  # of exponential bands, in the limit of many: width grows with noise


@dataclass(frozen=True)
class Row:
    """One line of the matrix of allowed maskings.

    Attributes:
        objective: The objective's name.
        schedule: What schedule it takes: any over `time` or `progress`, `none`, or one by name.
        bands: Whether it goes without and with noise bands.
        sampling: How its times may be drawn. `antithetic` is the default, and the only entry of
            objectives that draw no times.
    """

    objective: str
    schedule: str
    bands: tuple[bool, ...]
    sampling: tuple[Sampling, ...]


MATRIX: tuple[Row, ...] = (
    Row("clm", "none", (False,), ("antithetic",)),
    Row("mlm", "progress", (False,), ("antithetic",)),
    Row("diffusion", "time", (False, True), ("antithetic", "iid", "bell")),
    # Every number of masked tokens alike is what the linear schedule does, on the whole of (0, 1].
    Row("diffusion", "linear", (False,), ("stratified_k",)),
    # Bands go by the masked part of a sample, and here each block has its own.
    Row("block_diffusion", "time", (False,), ("antithetic", "iid", "bell")),
    Row("block_diffusion", "linear", (False,), ("stratified_k",)),
)

DEFAULT_SCHEDULES: dict[str, Params] = {
    "mlm": Constant(),
    "diffusion": Linear(),
    "block_diffusion": Linear(),
}


def check_masking(objective: Params, masking: Masking, stacks: int) -> list[str]:
    """What is wrong with a masking for this objective and number of stacks.

    Returns:
        One line per problem: the key, its value, the rule, the way out. An objective that is not
        in the matrix (a user's own) is let through.
    """
    name, banded = objective.choice, masking.bands is not None
    schedule = masking.schedule or DEFAULT_SCHEDULES.get(name)
    rows = [row for row in MATRIX if row.objective == name]
    found = list(_wrong_axes(rows, name, schedule, masking)) if rows else []
    if rows and not found and not any(_fits(r, schedule, banded, masking.sampling) for r in rows):
        row = next(row for row in rows if masking.sampling in row.sampling)
        found.append(
            f"masking.sampling: {masking.sampling} goes with schedule={row.schedule} and no bands, "
            "since it draws the number of masked tokens itself; use those, or antithetic"
        )
    return [*found, *_wrong_edges(masking.bands, stacks)]


def _wrong_axes(
    rows: list[Row], name: str, schedule: Params | None, masking: Masking
) -> Iterator[str]:
    """Values that no row of the objective has."""
    if not any(_takes(row, schedule) for row in rows):
        kinds = [row.schedule for row in rows]
        known = [n for kind in ("time", "progress") if kind in kinds for n in names_of(kind)]
        way_out = f"use {', '.join(known)}" if known else "it masks nothing; leave it empty"
        yield f"masking.schedule: {_name(schedule)} does not go with objective={name}; {way_out}"
    if not any((masking.bands is not None) in row.bands for row in rows):
        yield (
            f"masking.bands: {masking.bands} does not go with objective={name}; "
            "leave it empty or use objective=diffusion"
        )
    known = [sampling for row in rows for sampling in row.sampling]
    if masking.sampling not in known:
        yield (
            f"masking.sampling: {masking.sampling} does not go with objective={name}, which draws "
            f"no diffusion times; leave it at {known[0]}"
        )


def _fits(row: Row, schedule: Params | None, banded: bool, sampling: str) -> bool:
    return _takes(row, schedule) and banded in row.bands and sampling in row.sampling


def _takes(row: Row, schedule: Params | None) -> bool:
    kinds = ("none",) if schedule is None else (schedule.choice, schedule_kind(schedule.choice))
    return row.schedule in kinds


def _name(schedule: Params | None) -> str:
    return "none" if schedule is None else schedule.choice


def _wrong_edges(bands: Bands | None, stacks: int) -> Iterator[str]:
    if not isinstance(bands, tuple):
        return
    if len(bands) != stacks - 1:
        yield (
            f"masking.bands: {len(bands)} inner edges for rack.stacks={stacks}; "
            f"give {stacks - 1}, one between each two stacks"
        )
    if any(a >= b for a, b in pairwise((0.0, *bands, 1.0))):
        yield f"masking.bands: {bands} must rise strictly inside 0 and 1, as in (0.25, 0.5, 0.75)"


def check_band(objective: str, sampling: Sampling, band: tuple[float, float]) -> str | None:
    """What is wrong with corrupting inside `band`, or None."""
    low, high = band
    if said := not_rising("band", low, high):
        return said
    if band == FULL_BAND:
        return None
    rows = [row for row in MATRIX if row.objective == objective]
    if rows and not any(True in row.bands and sampling in row.sampling for row in rows):
        return (
            f"band: ({low}, {high}) goes with masked diffusion alone, its times drawn antithetic, "
            f"iid or bell, and not with objective={objective}, sampling={sampling}; leave it out"
        )
    return None


def band_edges(bands: Bands, stacks: int, schedule: Params) -> tuple[float, ...]:
    """The edges of the bands of `stacks` stacks, in mask probability.

    `equal_mass`: e_j = 1 - alpha(j/n), as much diffusion time in every band. `linear`: e_j = j/n,
    as much of alpha, which is how DiffusionBlocks cuts masked diffusion (arXiv 2506.14202, appendix
    D.2); under the linear schedule both are one. `exponential`: e_j = (16^(j/n) - 1) / 15, bands
    that widen with noise. A tuple gives the inner edges e_1 ... e_(n-1).

    Returns:
        n + 1 numbers rising from exactly 0 to exactly 1.

    Raises:
        ValueError: If a list has the wrong length or does not rise inside (0, 1).
    """
    problems = list(_wrong_edges(bands, stacks))
    if problems:
        raise ValueError("\n".join(problems))
    part = np.arange(1, stacks) / stacks
    if bands == "equal_mass":
        inner = 1 - time_schedule(schedule).alpha(part)
    elif bands == "linear":
        inner = part
    elif bands == "exponential":
        inner = (WIDEST_OVER_NARROWEST**part - 1) / (WIDEST_OVER_NARROWEST - 1)
    else:
        inner = np.array(bands)
    return (0.0, *(float(edge) for edge in inner), 1.0)


def stack_bands(
    masking: Masking, stacks: int, objective: Params
) -> tuple[tuple[float, float], ...]:
    """The band (low, high] of each stack, leftmost and heaviest first; (0, 1] without bands."""
    schedule = masking.schedule or DEFAULT_SCHEDULES.get(objective.choice)
    if masking.bands is None or schedule is None:
        return (FULL_BAND,) * stacks
    return tuple(pairwise(band_edges(masking.bands, stacks, schedule)))[::-1]


def check_bands_serve(
    objective: Params, masking: Masking, stacks: int, length: int
) -> Iterator[str]:
    """What is wrong with bands so narrow that a stack would train for nothing.

    Such are also bands without any width, where a schedule saturates.
    """
    bands = stack_bands(masking, stacks, objective)
    useless = [(f"s{i}", why) for i, b in enumerate(bands) if (why := unserved(b, length))]
    if useless:
        schedule = f" with schedule={_name(masking.schedule)}" if masking.schedule else ""
        stack, why = useless[0]
        yield (
            f"masking.bands: {masking.bands}{schedule} gives {stack} ({len(useless)} of {stacks} "
            f"stacks) the band {why}; use other bands, fewer stacks or longer samples"
        )


def unserved(band: tuple[float, float], length: int) -> str | None:
    """Why a band is never used on samples of `length` tokens, or None.

    Evaluation and sampling choose a rack's path by k/T, the masked part of the sample.
    """
    low, high = band
    near = int(high * length)
    most = max(k for k in (0, near - 1, near, near + 1) if k <= length and k / length <= high)
    if most / length > low:
        return None
    return (
        f"({low:g}, {high:g}], which holds no fraction k/{length} of data.seq_len={length} tokens, "
        "so that it would train and never be used"
    )


@lru_cache(maxsize=256)
def mean_mask_frac(
    schedule: Params | None, band: tuple[float, float] = FULL_BAND, bell: Bell | None = None
) -> float:
    """The expected masked fraction of a sample, to about 1e-6.

    Over diffusion time the mean of 1 - alpha(t) for t uniform in the band's times, or drawn from a
    bell; over progress the mean over training; 0 without a schedule. By Gauss-Legendre quadrature.
    """
    if schedule is None:
        return 0.0
    node, share = np.polynomial.legendre.leggauss(64)
    part, share = (node + 1) / 2, share / 2
    if schedule_kind(schedule.choice) == "progress":
        return float(sum(w * mask_ratio(schedule, p) for p, w in zip(part, share, strict=True)))
    curve = time_schedule(schedule)
    low, high = curve.time_of(np.array(band))
    part = part if bell is None else bell_times(part, bell)[0]
    return float(share @ (1 - curve.alpha(low + part * (high - low))))
