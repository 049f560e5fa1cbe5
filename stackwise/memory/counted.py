"""Positions at which the head is computed: in the largest of a stage's micro-batches, not the mean.

Diffusion draws the part that it hides, so that one batch has more counted positions than another,
and memory has to do for the largest. With a batch of one sample that is twice the mean.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch

from stackwise.budget import steps_of
from stackwise.memory.flops import counted_frac
from stackwise.objective import Diffusion, Mlm, hidden_count, schedule_of
from stackwise.schedules import progress_schedule, time_schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackwise.choice import Params
    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

POINTS = 65  # of a schedule over progress, and of moves of evenly spaced times, that are looked at


def micro_samples(exp: Experiment, placement: Placement) -> int:
    """Samples of one forward pass."""
    return min(placement.micro_batch or exp.optim.batch, exp.optim.batch)


def micro_tokens(exp: Experiment, placement: Placement) -> int:
    """Tokens of one forward pass."""
    return micro_samples(exp, placement) * exp.data.seq_len


def most_counted(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """Counted positions in the largest micro-batch that a stage may have.

    Evenly spaced times are moved together at each step, others drawn one by one: of either the
    largest is planned that is to be expected of so many steps.

    Args:
        exp: The experiment.
        placement: Its micro-batch.
        stage: The stage.

    Source: what batches have, in `tests/unit/test_the_largest_batch_is_planned.py`.
    """
    size, length = micro_samples(exp, placement), exp.data.seq_len
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if isinstance(exp.objective, Mlm) and schedule is not None:
        ratio, points = progress_schedule(schedule), np.linspace(*stage.progress, POINTS)
        return size * max(hidden_count(ratio(float(point)), length) for point in points)
    if isinstance(exp.objective, Diffusion) and schedule is not None:
        steps = max(1, steps_of(exp, stage))
        if exp.masking.sampling == "iid":
            draws = steps * ceil(exp.optim.batch / size)
            return _of_any_times(schedule, stage.band, size, length, draws)
        frac_PS = _moved_times(exp.optim.batch, size)
        if exp.masking.sampling == "stratified_k":
            count_P = _of_micros(np.ceil(frac_PS * length), size).max(1)
            return round(float(np.quantile(count_P, steps / (steps + 1))))
        hidden_PS = _hidden(schedule, stage.band, frac_PS)
        count_PM = length * _of_micros(hidden_PS, size)
        variance_PM = length * _of_micros(hidden_PS * (1 - hidden_PS), size)
        return min(size * length, round(_largest_of(count_PM, np.sqrt(variance_PM), steps)))
    return round(counted_frac(exp, stage) * size * length)


def _moved_times(batch: int, size: int) -> NDArray[np.float64]:
    """Evenly spaced times of a batch, in order, moved by up to a micro-batch and begun again at 1.

    Of those of the last micro-batch, which begins again, and of the one before it: one of the two
    is the latest. (Where the last is a smaller one, so many are taken for it: a little too late.)
    """
    place_S = np.arange(batch)[-min(2, batch // size) * size :]
    moved_P = (np.arange(POINTS) + 0.5) / POINTS * size
    frac_PS: NDArray[np.float64] = (moved_P[:, None] + place_S) / batch % 1
    return frac_PS


def _of_micros(of_PS: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Sums over the samples of each micro-batch, (P, 1) or (P, 2)."""
    found: NDArray[np.float64] = of_PS.reshape(len(of_PS), -1, size).sum(2)
    return found


def _largest_of(mean_PM: NDArray[np.float64], sd_PM: NDArray[np.float64], steps: int) -> float:
    """The largest to be expected of so many steps, each at one of these points by chance."""
    level = (steps - 0.375) / (steps + 0.25)  # Blom
    mean, sd = torch.from_numpy(mean_PM), torch.from_numpy(sd_PM).clamp(min=1e-9)
    low, high = float((mean - 9 * sd).min()), float((mean + 9 * sd).max())
    while high - low > 0.5:
        middle = (low + high) / 2
        below_P = torch.special.ndtr((middle - mean) / sd).prod(1)
        low, high = (middle, high) if float(below_P.mean()) < level else (low, middle)
    return (low + high) / 2


def _of_any_times(
    schedule: Params, band: tuple[float, float], size: int, length: int, draws: int
) -> int:
    """The largest of so many micro-batches, whose times and positions are drawn one by one."""
    hidden_S = _hidden(schedule, band, (np.arange(256) + 0.5) / 256)
    mean = size * length * hidden_S.mean()
    alike = (hidden_S * (1 - hidden_S)).mean() / length
    variance = size * length**2 * (hidden_S.var() + alike)
    beyond = NormalDist().inv_cdf((draws - 0.375) / (draws + 0.25)) * sqrt(variance)  # Blom
    return min(size * length, round(mean + beyond))


def _hidden(
    schedule: Params, band: tuple[float, float], frac: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The part that is hidden of samples that stand there in their band's time."""
    curve = time_schedule(schedule)
    low, high = curve.time_of(np.array(band))
    return np.asarray(1 - curve.alpha(low + frac * (high - low)))
