"""Block diffusion (BD3-LM, arXiv 2503.09573): blocks left to right, masked diffusion inside each.

    -log p(x) <= sum over blocks b of E_t [ w(t) * cross-entropy at the masked tokens of block b,
                                            given x_b masked at t and the clean blocks before it ]

(sections 3.1 and 4.1, equations 4, 6 and 8), which is the chain rule over blocks with the bound of
masked diffusion in each. Every block of every sample has a time of its own, spread over all of
them. A block of one token is masked always, with weight 1: its bound is exact, as the paper's
schedule for size 1 has it (section 4.2), so that blocks of one give the likelihood that `clm`
gives. A block as long as the sample is `diffusion`, to the last bit. All blocks are read at once,
noisy and clean (`model/direction.py`).

Clipped schedules fitted to each size (section 5) are not here: `masking.sampling` and the
schedules over time are.

Shapes: B samples, T tokens, N blocks of a sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from stackwise.bell import Bell, bell_times
from stackwise.choice import Params
from stackwise.corruption import Corrupted, Corruption
from stackwise.draws import Float, Int, smallest, time_fracs_B, uniform_BT
from stackwise.masking import DEFAULT_SCHEDULES, Sampling, mean_mask_frac
from stackwise.model.direction import BlockCausal, twice
from stackwise.schedules import time_schedule

if TYPE_CHECKING:
    from stackwise.data.batches import Batch


class BlockDiffusion(Params):
    """Blocks of tokens left to right, masked diffusion inside each (BD3-LM, arXiv 2503.09573)."""

    kind: Literal["block_diffusion"] = "block_diffusion"
    block: int = Field(
        4,
        ge=1,
        le=1 << 20,
        description="tokens per block; 1 is left to right, data.seq_len or more masked diffusion; "
        "a sample's last block may be shorter",
    )
    block_by_stage: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None,
        min_length=1,
        description="tokens per block in each stage, the last of which stays; empty: all alike",
    )

    @property
    def last(self) -> int:
        """Tokens per block of what has been trained to its end."""
        return self.block_by_stage[-1] if self.block_by_stage else self.block


def read_as(objective: Params, tokens: int) -> BlockCausal | None:
    """How samples of so many tokens are read; None where they are not, or are one block."""
    if not isinstance(objective, BlockDiffusion) or objective.last >= tokens:
        return None
    return twice(objective.last, tokens)


def rows_read(objective: Params, tokens: int) -> int:
    """Rows that pass through the blocks of a rack for a sample of so many tokens."""
    blocks = read_as(objective, tokens)
    return tokens if blocks is None else blocks.rows


def block_sizes(size: int, tokens: int) -> Int:
    """Tokens of each block, (N,)."""
    starts_N = np.arange(0, tokens, size)
    return np.minimum(starts_N + size, tokens) - starts_N


def noisy_blocks(rule: Corruption, batch: Batch, blocks: BlockCausal) -> Corrupted:
    """Mask each block at its own time, and put the clean tokens after the noisy ones."""
    ids_BT = np.asarray(batch.ids_BT, dtype=np.int64)
    (B, T), turn_B = ids_BT.shape, getattr(batch, "turn_B", None)
    sample_B, draw_B = np.asarray(batch.sample_B), np.asarray(batch.draw_B)
    size_N = block_sizes(blocks.size, T)
    frac_BN = time_fracs_B(
        rule.seed,
        sample_B,
        draw_B if turn_B is None else np.asarray(turn_B),
        np.asarray(batch.place_B),
        batch=rule.batch_size,
        band=rule.band,
        sampling=rule.sampling,
        blocks=len(size_N),
    ).reshape(B, -1)
    u_BT = uniform_BT(rule.seed, sample_B, draw_B, rule.band, T)
    if rule.sampling == "stratified_k":
        k_BN = np.ceil(frac_BN * size_N).astype(np.int64)
        masked_BT, weight_BN = chosen_in_blocks(u_BT, k_BN, blocks.size), size_N / k_BN
    else:
        schedule = time_schedule(rule.schedule or DEFAULT_SCHEDULES["block_diffusion"])
        importance_BN = np.ones(frac_BN.shape)
        if rule.sampling == "bell":
            frac_BN, importance_BN = bell_times(frac_BN, rule.bell)
        prob_BN = 1 - schedule.alpha(frac_BN)
        weight_BN = importance_BN * schedule.weight(frac_BN)
        masked_BT = u_BT < np.repeat(prob_BN, size_N, axis=1)
    alone_T = np.repeat(size_N == 1, size_N)
    masked_BT = masked_BT | alone_T
    weight_BT = np.where(alone_T, 1.0, np.repeat(weight_BN, size_N, axis=1))
    return _read_twice(rule, ids_BT, masked_BT, weight_BT, blocks)


def chosen_in_blocks(u_BT: Float, k_BN: Int, size: int) -> NDArray[np.bool_]:
    """Choose k tokens of each block, uniformly: those with the smallest numbers."""
    (B, T), N = u_BT.shape, k_BN.shape[1]
    padded_BT = np.pad(u_BT, ((0, 0), (0, N * size - T)), constant_values=np.inf)
    chosen = smallest(padded_BT.reshape(B * N, size), k_BN.reshape(-1))
    return chosen.reshape(B, -1)[:, :T]


def _read_twice(
    rule: Corruption,
    ids_BT: Int,
    masked_BT: NDArray[np.bool_],
    weight_BT: Float,
    blocks: BlockCausal,
) -> Corrupted:
    clean_BC = ids_BT[:, : blocks.clean]
    no_BC = np.zeros(clean_BC.shape, dtype=bool)
    input_BR = np.concatenate([np.where(masked_BT, rule.vocab, ids_BT), clean_BC], axis=1)
    weight_BR = np.concatenate([weight_BT, no_BC], axis=1).astype(np.float32)
    return Corrupted(
        torch.from_numpy(input_BR),
        torch.from_numpy(np.concatenate([ids_BT, clean_BC], axis=1)),
        torch.from_numpy(np.concatenate([masked_BT, no_BC], axis=1)),
        torch.ones(len(ids_BT)),
        torch.from_numpy(masked_BT.mean(1).astype(np.float32)),
        weight_BT=torch.from_numpy(weight_BR),
        blocks=blocks,
    )


def mean_hidden(
    blocks: BlockCausal, schedule: Params, sampling: Sampling, bell: Bell | None
) -> float:
    """The expected part of a sample's tokens that are masked."""
    sizes, times = np.unique(block_sizes(blocks.size, blocks.noisy), return_counts=True)
    hidden = 0.0
    for size, count in zip(sizes.tolist(), times.tolist(), strict=True):
        if size == 1:
            hidden += count
        elif sampling == "stratified_k":
            hidden += count * (size + 1) / 2  # the mean of 1 .. size
        else:
            hidden += count * size * mean_mask_frac(schedule, bell=bell)
    return hidden / blocks.noisy
