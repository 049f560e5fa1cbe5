"""The loss at every depth of a rack, on held-out windows under fixed noise.

By exit: the rack ends early. By entry: it begins late, which is the picture for racks that grow to
the left. Both go through the rack's own final norm and head, which makes them a measurement of
this head, not of what could be read out. Likelihoods are in `evaluation.py`.

Shapes: N windows, B samples, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from stackwise.block_diffusion import BlockDiffusion
from stackwise.data.batches import Batch
from stackwise.evaluation import device_of, nats_at
from stackwise.objective import Corrupted, Corruption, Diffusion, corrupt
from stackwise.stage import FULL_BAND

if TYPE_CHECKING:
    from stackwise.model.rack import Rack


def fixed_draws(
    rule: Corruption, windows_NT: ArrayLike, *, draws: int = 1, progress: float = 0.0
) -> Corrupted:
    """Held-out windows under the noise of a stage, the same at every call.

    The loss on them has the expectation of the stage's loss. Times are spread over the windows;
    where all noise is allowed, diffusion draws the number of masked tokens instead, for a fraction
    of the variance (`tests/unit/test_drawing_times_well_pays.py`).

    Args:
        rule: The stage's corruption.
        windows_NT: Ids, (N, T).
        draws: Masks per window.
        progress: Part of the training done, for schedules over progress.
    """
    ids_NT = np.asarray(windows_NT)
    place_N, draw_D = np.arange(len(ids_NT)), np.arange(draws)
    batch = Batch(
        ids_BT=np.tile(ids_NT, (draws, 1)),
        sample_B=np.tile(place_N, draws),
        draw_B=np.repeat(draw_D, len(ids_NT)),
        place_B=np.tile(place_N, draws),
    )
    rule = replace(rule, batch_size=len(ids_NT))
    if isinstance(rule.objective, Diffusion | BlockDiffusion) and rule.band == FULL_BAND:
        rule = replace(rule, sampling="stratified_k")
    return corrupt(rule, batch, progress=progress)


@torch.no_grad()
def exit_losses(
    rack: Rack,
    noisy: Corrupted,
    *,
    causal: bool,
    path: tuple[str, ...] | None = None,
    batch: int = 64,
) -> list[float]:
    """The loss if the rack ended early: after the embedding, and after each block of the path.

    Every exit goes through the rack's own final norm and head (the logit lens).

    Args:
        rack: The rack.
        noisy: Fixed held-out draws.
        causal: Attention direction.
        path: Stacks to run; None for the rack's own.
        batch: Rows per forward pass.

    Returns:
        Nats per token, one more than there are blocks; the last is the rack's own loss.
    """
    totals: dict[int, float] = {}
    for part in noisy.to(device_of(rack)).split(batch):
        direction = part.direction(causal)
        exits = rack.exits(part.input_BT, causal=direction, path=path, time_B=part.level_B)
        for depth, x_BTD in enumerate(exits):
            totals[depth] = totals.get(depth, 0.0) + total_loss(rack, x_BTD, part)
    return [total / noisy.positions for total in totals.values()]


@torch.no_grad()
def entry_losses(
    rack: Rack,
    noisy: Corrupted,
    *,
    causal: bool,
    path: tuple[str, ...] | None = None,
    batch: int = 64,
) -> list[float]:
    """The loss if the first j stacks of the path are skipped, j = 0, 1, ... up to all of them.

    The picture for racks that grow to the left, whose suffix is a whole rack of its own. Arguments
    as for `exit_losses`; the first value is the rack's own loss, the last is the embedding's.
    """
    stacks = rack.path_for(1.0) if path is None else path
    rests = [stacks[skipped:] for skipped in range(len(stacks) + 1)]
    return [path_loss(rack, noisy, causal=causal, path=rest, batch=batch) for rest in rests]


@torch.no_grad()
def path_loss(
    rack: Rack, noisy: Corrupted, *, causal: bool, path: tuple[str, ...], batch: int = 64
) -> float:
    """The loss of a path at its end alone, nats per token. Arguments as for `exit_losses`."""
    total = 0.0
    for part in noisy.to(device_of(rack)).split(batch):
        direction = part.direction(causal)
        x_BTD = rack.hidden(part.input_BT, causal=direction, path=path, time_B=part.level_B)
        total += total_loss(rack, x_BTD, part)
    return total / noisy.positions


def total_loss(rack: Rack, x_BTD: Tensor, part: Corrupted) -> float:
    """Weighted nats over the counted positions."""
    nats_N = nats_at(rack, x_BTD[part.counted_BT], part.target_N)
    return float((nats_N * part.weight_N).sum())
