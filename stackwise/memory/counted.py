"""Positions at which the head is computed: in the largest of a stage's micro-batches, not the mean.

Diffusion draws the part that it hides, so that one batch has more counted positions than another,
and memory has to do for the largest. With a batch of one sample that is twice the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from stackwise.draws import time_fracs_B
from stackwise.memory.flops import counted_frac
from stackwise.objective import Diffusion, Mlm, hidden_count, schedule_of
from stackwise.schedules import progress_schedule, time_schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackwise.choice import Params
    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

STEPS = 256  # of a stage, that are drawn beforehand
POINTS = 65  # points of a schedule over progress that are looked at


def most_counted(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """Counted positions in the largest micro-batch of a stage, as it is to be expected.

    Args:
        exp: The experiment.
        placement: Its micro-batch.
        stage: The stage; the more steps it has, the larger their largest.

    Source: what batches have, in `tests/unit/test_the_largest_batch_is_planned.py`.
    """
    size = min(placement.micro_batch or exp.optim.batch, exp.optim.batch)
    length = exp.data.seq_len
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if isinstance(exp.objective, Mlm) and schedule is not None:
        ratio, points = progress_schedule(schedule), np.linspace(*stage.progress, POINTS)
        return size * max(hidden_count(ratio(float(point)), length) for point in points)
    if isinstance(exp.objective, Diffusion) and schedule is not None:
        steps = max(1, (stage.tokens or 0) // (exp.optim.batch * length))
        return _of_diffusion(exp, stage, schedule, size, steps)
    return round(counted_frac(exp, stage) * size * length)


def _of_diffusion(exp: Experiment, stage: Stage, schedule: Params, size: int, steps: int) -> int:
    """The largest of what so many steps draw; how they draw: `draws.time_fracs_B`."""
    batch, length, sampling = exp.optim.batch, exp.data.seq_len, exp.masking.sampling
    if sampling == "iid":  # any times, and at each any positions
        draws, frac_S = steps * ceil(batch / size), (np.arange(256) + 0.5) / 256
        hidden_S = _hidden(schedule, stage.band, frac_S)
        mean = size * length * hidden_S.mean()
        alike = (hidden_S * (1 - hidden_S)).mean() / length
        variance = size * length**2 * (hidden_S.var() + alike)
        beyond = NormalDist().inv_cdf((draws - 0.375) / (draws + 0.25)) * sqrt(variance)  # Blom
        return min(size * length, round(mean + beyond))
    best = 0
    for frac_S in _micros(_times(exp, stage, steps), size):
        if sampling == "stratified_k":
            best = max(best, int(np.ceil(frac_S * length).sum()))
        else:
            best = max(best, round(length * _hidden(schedule, stage.band, frac_S).sum()))
    return best


def _times(exp: Experiment, stage: Stage, steps: int) -> NDArray[np.float64]:
    """Where the samples of a stage's first steps stand in time, as the run will draw them.

    As if no epoch ended: which sample comes is the corpus's, when it comes is not.
    """
    batch = exp.optim.batch
    whole = steps / max(1e-12, stage.progress[1] - stage.progress[0])
    first = 0 if exp.data.restart else round(stage.progress[0] * whole)
    place_M = np.arange(first * batch, (first + min(steps, STEPS)) * batch)
    none_M = np.zeros_like(place_M)
    sampling = exp.masking.sampling
    return time_fracs_B(
        exp.seed, none_M, none_M, place_M, batch=batch, band=stage.band, sampling=sampling
    ).reshape(-1, batch)


def _micros(frac_SB: NDArray[np.float64], size: int) -> Iterator[NDArray[np.float64]]:
    for frac_B in frac_SB:
        yield from (frac_B[at : at + size] for at in range(0, len(frac_B), size))


def _hidden(
    schedule: Params, band: tuple[float, float], frac_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The part that is hidden of samples that stand there in their band's time."""
    curve = time_schedule(schedule)
    low, high = curve.time_of(np.array(band))
    return np.asarray(1 - curve.alpha(low + frac_S * (high - low)))
