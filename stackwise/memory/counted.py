"""Positions at which the head is computed: in the largest of a stage's micro-batches, not the mean.

Diffusion draws the part that it hides, so that one batch has more counted positions than another,
and memory has to do for the largest. With a batch of one sample that is twice the mean.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from stackwise.bell import bell_times
from stackwise.block_diffusion import BlockDiffusion, block_sizes, read_as, rows_read
from stackwise.budget import steps_of
from stackwise.by_stage import as_read, in_blocks
from stackwise.memory.flops import counted_frac, vocab_size
from stackwise.objective import Diffusion, Mlm, hidden_count, schedule_of
from stackwise.schedules import progress_schedule, time_schedule
from stackwise.training.chunked import LOGITS_AT_ONCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackwise.choice import Params
    from stackwise.config import Experiment, Placement
    from stackwise.model.direction import BlockCausal
    from stackwise.stage import Stage

POINTS = 65  # points of a schedule over progress that are looked at


def micro_samples(exp: Experiment, placement: Placement) -> int:
    """Samples of one forward pass."""
    return min(placement.micro_batch or exp.optim.batch, exp.optim.batch)


def micro_tokens(exp: Experiment, placement: Placement) -> int:
    """Tokens of one forward pass."""
    return micro_samples(exp, placement) * exp.data.seq_len


def micro_rows(exp: Experiment, placement: Placement) -> int:
    """Rows of one forward pass through the blocks: tokens, or more where they are read twice."""
    return micro_samples(exp, placement) * rows_read(exp.objective, exp.data.seq_len)


def most_counted(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """Counted positions in the largest micro-batch that a stage may have.

    Evenly spaced times have a largest that many steps come near to, whatever the seed; times drawn
    one by one have one that is to be expected of so many.

    Args:
        exp: The experiment.
        placement: Its micro-batch.
        stage: The stage.

    Source: what batches have, in `tests/unit/test_the_largest_batch_is_planned.py`.
    """
    size, length = micro_samples(exp, placement), as_read(exp, stage).data.seq_len
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if isinstance(exp.objective, Mlm) and schedule is not None:
        ratio, points = progress_schedule(schedule), np.linspace(*stage.progress, POINTS)
        return size * max(hidden_count(ratio(float(point)), length) for point in points)
    blocks = read_as(in_blocks(exp, stage).objective, length)
    if blocks is not None and schedule is not None:
        return _most_in_blocks(exp, stage, blocks, schedule, size)
    if isinstance(exp.objective, Diffusion | BlockDiffusion) and schedule is not None:
        if exp.masking.sampling == "iid":
            draws = max(1, steps_of(exp, stage)) * ceil(exp.optim.batch / size)
            return _of_any_times(schedule, stage.band, size, length, draws)
        # Of B evenly spaced times the latest, moved as far as they can be.
        frac_S = (np.arange(exp.optim.batch)[-size:] + 1) / exp.optim.batch
        if exp.masking.sampling == "bell":
            frac_S, _ = bell_times(frac_S, exp.masking.bell)
        if exp.masking.sampling == "stratified_k":
            return int(np.ceil(frac_S * length).sum())
        return round(length * _hidden(schedule, stage.band, frac_S).sum())
    return round(counted_frac(exp, stage) * size * length)


def _most_in_blocks(
    exp: Experiment, stage: Stage, blocks: BlockCausal, schedule: Params, size: int
) -> int:
    """The same where each block of a sample has a time of its own; one token always counts."""
    size_N = block_sizes(blocks.size, blocks.noisy)
    if exp.masking.sampling == "iid":
        if blocks.size == 1:
            return size * blocks.noisy
        draws = max(1, steps_of(exp, stage)) * ceil(exp.optim.batch / size)
        times = size * len(size_N)
        return _of_any_times(schedule, stage.band, times, blocks.noisy / len(size_N), draws)
    units, count = exp.optim.batch * len(size_N), size * len(size_N)
    frac_U = (np.arange(units)[-count:] + 1) / units
    if exp.masking.sampling == "bell":
        frac_U, _ = bell_times(frac_U, exp.masking.bell)
    size_U = np.tile(size_N, size)
    if exp.masking.sampling == "stratified_k":
        return int(np.ceil(frac_U * size_U).sum())
    hidden_U = np.where(size_U == 1, 1.0, _hidden(schedule, stage.band, frac_U))
    return round(float((size_U * hidden_U).sum()))


def in_pieces(exp: Experiment, placement: Placement, stage: Stage) -> bool:
    """Whether the logits of the largest micro-batch are too many to be made at once."""
    return most_counted(exp, placement, stage) * vocab_size(exp) > LOGITS_AT_ONCE


def _of_any_times(
    schedule: Params, band: tuple[float, float], size: int, length: float, draws: int
) -> int:
    """The largest of so many micro-batches, whose times and positions are drawn one by one."""
    hidden_S = _hidden(schedule, band, (np.arange(256) + 0.5) / 256)
    mean = size * length * hidden_S.mean()
    alike = (hidden_S * (1 - hidden_S)).mean() / length
    variance = size * length**2 * (hidden_S.var() + alike)
    beyond = NormalDist().inv_cdf((draws - 0.375) / (draws + 0.25)) * sqrt(variance)  # Blom
    return min(round(size * length), round(mean + beyond))


def _hidden(
    schedule: Params, band: tuple[float, float], frac_S: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The part that is hidden of samples that stand there in their band's time."""
    curve = time_schedule(schedule)
    low, high = curve.time_of(np.array(band))
    return np.asarray(1 - curve.alpha(low + frac_S * (high - low)))
