"""What a rack would read at every depth, if it ended there: the logit lens, token by token.

As in `probe.py`, every exit goes through the rack's own final norm and head.

Shapes: L exits (one more than there are blocks), B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stackwise.runs.layers import exit_names

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.model.direction import Direction
from stackwise.model.rack import Rack


@dataclass(frozen=True)
class Depths:
    """The best guess at every depth and place.

    Attributes:
        names: `embedding`, then the blocks of the path.
        ids_LBT: The most probable token, int64.
        prob_LBT: Its probability, float32.
    """

    names: tuple[str, ...]
    ids_LBT: Tensor
    prob_LBT: Tensor


@torch.no_grad()
def read_depths(
    rack: Rack, ids_BT: Tensor, *, causal: Direction, path: Sequence[str] | None = None
) -> Depths:
    """The most probable token at every place, after the embedding and after every block.

    Args:
        rack: The rack.
        ids_BT: Ids up to V + 1, (B, T).
        causal: Attention direction.
        path: Stacks to run; None for the rack's own at full noise.
    """
    stacks = rack.path_for(1.0) if path is None else tuple(path)
    ids, probs = [], []
    for x_BTD in rack.exits(ids_BT, causal=causal, path=stacks):
        prob_BT, best_BT = rack.logits(x_BTD).float().softmax(-1).max(-1)
        ids.append(best_BT.cpu())
        probs.append(prob_BT.cpu())
    return Depths(tuple(exit_names(stacks, len(ids))), torch.stack(ids), torch.stack(probs))


def depth_flops(exp: Experiment, path: Sequence[str], tokens: int) -> float:
    """FLOPs of `read_depths` on one text: one forward pass, and the head at every depth."""
    from stackwise.memory.flops import exit_flops

    return exit_flops(exp.replace(data={"seq_len": tokens}), tuple(path), tokens, tokens)
