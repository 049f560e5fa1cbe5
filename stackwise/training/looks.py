"""The loss of a stage's path at its own end, on held-out windows.

The trunk gives what it gives to a training step: each of its stacks rounds its output, and where
the trunk is cached its rows are read and not computed, so that a look takes what the stacks after
the trunk take, however deep the rack is. When there is a look is decided in `watch.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stackwise.by_stage import in_blocks
from stackwise.data.heldout import rows_at_once
from stackwise.memory.flops import forward_flops_per_token, head_flops_per_position
from stackwise.memory.lowrank import adapters_of
from stackwise.model.direction import start_of
from stackwise.objective import Corrupted, is_causal
from stackwise.probe import total_loss
from stackwise.stage import trunk_of
from stackwise.training.caching import looks_are_cached, open_looks, read_whole
from stackwise.training.rows import rows_looked_at
from stackwise.training.step import autocast
from stackwise.training.work import Work
from stackwise.trunk.border import border_of, through
from stackwise.trunk.cache import TrunkCache


@torch.no_grad()
def loss_now(work: Work, number: int) -> float:
    """The loss of a stage's path on its held-out windows, with the weights as they are.

    What it costs is counted with the trunk, as training is: it is the experiment's, wherever the
    trunk's outputs come from.
    """
    exp, path, noisy = work.exp, work.stages[number].path, work.heldout(number)
    tokens, counted = noisy.positions, int(noisy.counted_BT.sum())
    looked, carried = in_blocks(exp, work.stages[number]), adapters_of(work.stages[number])
    spent = forward_flops_per_token(looked, path, carried) * tokens
    spent += head_flops_per_position(exp) * counted
    work.at.probe_flops += spent
    causal = noisy.direction(is_causal(exp.objective))
    rest = path[len(trunk_of(work.stages[number])) :]
    cache = open_looks(work, number) if looks_are_cached(work, number) else None
    total, first = 0.0, 0
    with autocast(work.device, getattr(torch, exp.precision.compute)):
        for part in noisy.to(work.device).split(rows_at_once(exp)):
            x_BTD = trunk_rows(work, number, part, first, cache)
            time_B = work.rack.time_of(part.input_BT, part.level_B)
            for block in work.rack.blocks(rest):
                x_BTD = block(x_BTD, causal=causal, time_B=time_B)
            total += total_loss(work.rack, x_BTD, part)
            first += len(part.input_BT)
    return total / tokens


def trunk_rows(
    work: Work, number: int, part: Corrupted, first: int, cache: TrunkCache | None
) -> Tensor:
    """What the trunk of a stage makes of some held-out windows, or what was read of it."""
    if cache is not None:
        rows, count = rows_looked_at(work, number), len(part.input_BT)
        return read_whole(work, number, rows, cache, first, count).to(work.device)
    exp = work.exp
    trunk = [[*work.rack.blocks([stack])] for stack in trunk_of(work.stages[number])]
    causal, border = part.direction(is_causal(exp.objective)), border_of(exp.precision)
    x_BTD = work.rack.embedding(part.input_BT, start_of(causal))
    time_B = work.rack.time_of(part.input_BT, part.level_B)
    return through(x_BTD, trunk, causal=causal, border=border, time_B=time_B)
