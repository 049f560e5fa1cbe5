"""Objectives: from token ids to what the rack reads, and from logits to a loss.

    loss = sum over counted positions of weight * cross-entropy / all positions

- `clm`: reads [START] and all ids but the last, causally; every id is a target; weight 1.
- `mlm` (BERT, arXiv 1810.04805): k = max(1, round(r T)) positions per sample, of which 80 % read
  [MASK], 10 % a random id, 10 % stay; weight T/k, so that the loss is the mean over those k.
- `diffusion` (MDLM 2406.07524, MD4 2406.04329, LLaDA 2502.09992): each position reads [MASK] with
  probability 1 - alpha(t); weight -alpha'(t) / (1 - alpha(t)). The loss bounds the negative
  log-likelihood per token. Inside a noise band, t is drawn between the band's times and the weight
  carries the factor (t_high - t_low), so that the bands' losses add up to the whole bound. Times
  that a bell draws carry their importance, too (`bell.py`).
- `block_diffusion` (BD3-LM, arXiv 2503.09573): that loss in each block of tokens, given the clean
  blocks before it, each block with a time of its own (`block_diffusion.py`).

[MASK] is id V and [START] id V + 1: the head has a row for neither. What corruption takes and gives
is in `corruption.py`, schedules in `schedules.py`, random draws in `draws.py`; a finished rack is
measured by `evaluation.py`.

Shapes: B samples, T tokens, N counted positions, V entries of the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from stackwise.bell import USUAL, Bell, bell_times
from stackwise.block_diffusion import (
    BlockDiffusion,
    mean_hidden,
    noisy_blocks,
    read_as,
)
from stackwise.choice import Choice, Params, find
from stackwise.corruption import Corrupted as Corrupted
from stackwise.corruption import Corruption as Corruption
from stackwise.draws import Stream, smallest, time_fracs_B, uniform_BT
from stackwise.masking import DEFAULT_SCHEDULES, Sampling, mean_mask_frac
from stackwise.model.direction import Direction
from stackwise.schedules import mask_ratio, progress_schedule, time_schedule

if TYPE_CHECKING:
    from stackwise.data.batches import Batch

POINTS = 4096  # of a mean over training


@dataclass(frozen=True)
class Objective(Choice):
    """An entry of `OBJECTIVES`. `build` is its (rule, batch, progress) -> Corrupted.

    Attributes:
        causal: Whether a position sees only those before it.
    """

    causal: bool = False


class Clm(Params):
    """Causal language modelling: each token from those before it, the first one included."""

    kind: Literal["clm"] = "clm"


class Mlm(Params):
    """Masked language modelling (BERT). It has no likelihood of its own."""

    kind: Literal["mlm"] = "mlm"
    random_frac: float = Field(
        0.1, ge=0, le=0.5, description="part of the counted positions that read a random id"
    )
    keep_frac: float = Field(
        0.1, ge=0, le=0.5, description="part of the counted positions that read their own id"
    )


class Diffusion(Params):
    """Masked diffusion in continuous time: a bound on the likelihood."""

    kind: Literal["diffusion"] = "diffusion"


def corrupt(rule: Corruption, batch: Batch, *, progress: float = 0.0) -> Corrupted:
    """Corrupt a batch: a pure function of the seed and of each sample's id, draw, place and band.

    Args:
        rule: How.
        batch: Ids below `rule.vocab` with their sample ids, draws (epochs) and places.
        progress: Part of the training done, 0 to 1, for schedules over progress.

    Returns:
        Torch tensors on the CPU.

    Raises:
        ValueError: If the objective or the schedule is unknown, or they do not go together.
    """
    build = find(OBJECTIVES, rule.objective.choice, "objective").build
    corrupted: Corrupted = build(rule, batch, progress)
    return corrupted


def clm(rule: Corruption, batch: Batch, progress: float) -> Corrupted:
    """Shift right by [START]; every position counts with weight 1."""
    ids_BT = np.asarray(batch.ids_BT, dtype=np.int64)
    input_BT = np.empty_like(ids_BT)
    input_BT[:, 0], input_BT[:, 1:] = rule.vocab + 1, ids_BT[:, :-1]
    every_BT, one_B = np.ones(ids_BT.shape, dtype=bool), np.ones(len(ids_BT))
    return _corrupted(input_BT, ids_BT, every_BT, one_B, 0 * one_B)


def mlm(rule: Corruption, batch: Batch, progress: float) -> Corrupted:
    """Hide k positions of each sample; most read [MASK], some a random id, some their own."""
    ids_BT = np.asarray(batch.ids_BT, dtype=np.int64)
    (B, T), params = ids_BT.shape, rule.objective
    assert isinstance(params, Mlm)
    k = hidden_count(mask_ratio(_schedule(rule), progress), T)
    u_BT, kind_BT, random_BT = np.split(_uniform(rule, batch, 3 * T), 3, axis=1)
    chosen_BT = smallest(u_BT, np.full(B, k))
    random_ids_BT = (random_BT * rule.vocab).astype(np.int64)
    hidden_BT = np.where(kind_BT < params.random_frac, random_ids_BT, rule.vocab)
    hidden_BT = np.where(kind_BT >= 1 - params.keep_frac, ids_BT, hidden_BT)
    input_BT = np.where(chosen_BT, hidden_BT, ids_BT)
    return _corrupted(input_BT, ids_BT, chosen_BT, np.full(B, T / k), np.full(B, k / T))


def hidden_count(ratio: float, length: int) -> int:
    """How many of `length` positions `mlm` hides: a whole number, and one or more."""
    return max(1, round(ratio * length))


def diffusion(rule: Corruption, batch: Batch, progress: float) -> Corrupted:
    """Mask each position with probability 1 - alpha(t), or, stratified, exactly k of them."""
    ids_BT = np.asarray(batch.ids_BT, dtype=np.int64)
    T, turn_B = ids_BT.shape[1], getattr(batch, "turn_B", None)
    frac_B = time_fracs_B(
        rule.seed,
        np.asarray(batch.sample_B),
        np.asarray(batch.draw_B if turn_B is None else turn_B),
        np.asarray(batch.place_B),
        batch=rule.batch_size,
        band=rule.band,
        sampling=rule.sampling,
    )
    if rule.sampling == "stratified_k":
        k_B = np.ceil(frac_B * T).astype(np.int64)
        masked_BT, weight_B, prob_B = smallest(_uniform(rule, batch, T), k_B), T / k_B, None
    else:
        schedule = time_schedule(_schedule(rule))
        low, high = schedule.time_of(np.array(rule.band))
        importance_B = np.ones(len(frac_B))
        if rule.sampling == "bell":
            frac_B, importance_B = bell_times(frac_B, rule.bell)
        t_B = low + frac_B * (high - low)
        prob_B = 1 - schedule.alpha(t_B)
        masked_BT = _uniform(rule, batch, T) < prob_B[:, None]
        weight_B = importance_B * (high - low) * schedule.weight(t_B)
    input_BT = np.where(masked_BT, rule.vocab, ids_BT)
    return _corrupted(input_BT, ids_BT, masked_BT, weight_B, masked_BT.mean(1), prob_B)


def block_diffusion(rule: Corruption, batch: Batch, progress: float) -> Corrupted:
    """Each block at a time of its own, all read at once; one block alone is `diffusion`."""
    blocks = read_as(rule.objective, np.asarray(batch.ids_BT).shape[1])
    if blocks is None:
        return diffusion(rule, batch, progress)
    return noisy_blocks(rule, batch, blocks)


def _uniform(rule: Corruption, batch: Batch, length: int) -> NDArray[np.float64]:
    sample_B, draw_B = np.asarray(batch.sample_B), np.asarray(batch.draw_B)
    return uniform_BT(rule.seed, sample_B, draw_B, rule.band, length, Stream.MASK)


def _schedule(rule: Corruption) -> Params:
    schedule = schedule_of(rule.objective, rule.schedule)
    if schedule is None:
        raise ValueError(f"masking.schedule: objective={rule.objective.choice} needs one")
    return schedule


def _corrupted(
    input_BT: NDArray[np.int64],
    target_BT: NDArray[np.int64],
    counted_BT: NDArray[np.bool_],
    weight_B: NDArray[np.float64],
    mask_frac_B: NDArray[np.float64],
    prob_B: NDArray[np.float64] | None = None,
) -> Corrupted:
    return Corrupted(
        torch.from_numpy(input_BT),
        torch.from_numpy(target_BT.copy()),
        torch.from_numpy(counted_BT),
        torch.from_numpy(weight_B.astype(np.float32)),
        torch.from_numpy(mask_frac_B.astype(np.float32)),
        time_B=None if prob_B is None else torch.from_numpy(prob_B.astype(np.float32)),
    )


OBJECTIVES: dict[str, Choice] = {
    "clm": Objective(clm, Clm, causal=True),
    "mlm": Objective(mlm, Mlm),
    "diffusion": Objective(diffusion, Diffusion),
    "block_diffusion": Objective(block_diffusion, BlockDiffusion),
}


def is_causal(objective: Params) -> bool:
    """Whether the objective reads left to right. A plain function in `OBJECTIVES` does not."""
    entry = find(OBJECTIVES, objective.choice, "objective")
    return isinstance(entry, Objective) and entry.causal


def direction_of(objective: Params, tokens: int) -> Direction:
    """How samples of so many tokens are read: left to right, whole, or block by block."""
    return read_as(objective, tokens) or is_causal(objective)


def schedule_of(objective: Params, schedule: Params | None) -> Params | None:
    """The masking schedule in force: the one given, or the objective's default, if it has one."""
    return schedule or DEFAULT_SCHEDULES.get(objective.choice)


def counted_frac(
    objective: Params,
    schedule: Params | None,
    *,
    sampling: Sampling,
    band: tuple[float, float],
    length: int,
    progress: tuple[float, float],
    bell: Bell = USUAL,
) -> float:
    """The expected part of a sample's positions that count in the loss.

    Args:
        objective: Parameters of the objective.
        schedule: Masking schedule; None for the objective's default.
        sampling: How diffusion times are drawn.
        band: Noise band (low, high].
        length: Tokens per sample, T.
        progress: Part of the training that is asked about.
        bell: The density of times with sampling=bell.

    Source: what batches have, in `tests/unit/test_budgets_are_spent_equally.py`.
    """
    schedule = schedule_of(objective, schedule)
    if is_causal(objective) or schedule is None:  # a user's own objective may count all of them
        return 1.0
    if isinstance(objective, Mlm):
        return _mean_hidden_frac(schedule, length, progress)
    if (blocks := read_as(objective, length)) is not None:
        return mean_hidden(blocks, schedule, sampling, bell if sampling == "bell" else None)
    if isinstance(objective, Diffusion | BlockDiffusion) and sampling == "stratified_k":
        return (length + 1) / (2 * length)  # the mean of 1 .. T, over T
    return mean_mask_frac(schedule, band, bell if sampling == "bell" else None)


@lru_cache(maxsize=256)
def _mean_hidden_frac(schedule: Params, length: int, progress: tuple[float, float]) -> float:
    """The mean over training of what `mlm` hides, by midpoints: a step function of progress."""
    (start, end), ratio = progress, progress_schedule(schedule)
    points = start + (end - start) * (np.arange(POINTS) + 0.5) / POINTS
    return sum(hidden_count(ratio(float(p)), length) for p in points) / POINTS / length


def loss_at(logits_NV: Tensor, target_N: Tensor, weight_N: Tensor, positions: int) -> Tensor:
    """Weighted cross-entropy at the counted positions, per position of the batch.

    Additive over micro-batches when `positions` is that of the whole batch.

    Args:
        logits_NV: Unnormalised, float32, over the head's V entries.
        target_N: Ids below V, int64.
        weight_N: Weight of each.
        positions: Positions of the whole batch, counted or not.

    Returns:
        A scalar in nats per token; 0 (with a gradient) when N is 0.

    Source: MDLM, arXiv 2406.07524; held by `tests/unit/test_diffusion_bounds_the_likelihood.py`.
    """
    nats_N = F.cross_entropy(logits_NV, target_N, reduction="none")
    return (weight_N * nats_N).sum() / positions
