"""First-hitting sampling: the continuous-time process itself, one position at a time.

Shapes: B samples, T tokens, N samples that still have a mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor
from torch.nn.functional import one_hot

from stackwise.choice import Params
from stackwise.sampling.choosing import choose, logits_at
from stackwise.sampling.task import Task


class FirstHitting(Params):
    """One position at each step, in the order of hitting times that are drawn: the exact law.

    Zheng et al. (arXiv 2409.02908). The reverse process in continuous time without its empty
    steps: as many steps as masks.
    """

    kind: Literal["first_hitting"] = "first_hitting"


def first_hitting(task: Task, params: FirstHitting) -> Iterator[Tensor]:
    """Draw when each mask leaves, then fill them from the first to the last.

    In the reverse process a mask is still there at time t with probability 1 - alpha(t), whatever
    the others do: so the noise level lambda = 1 - alpha at which it leaves is uniform on (0, 1),
    and its time is that at which the schedule has this level. Of n masks the first to leave has
    lambda = u^(1/n), as in the paper's equation for the next hitting time. No two leave together,
    and a rack that is told no time never needs the schedule.
    """
    ids_BT = task.ids_BT
    level_BT = hitting_levels(task)
    for _ in range(task.most):
        left_BT = task.masked(ids_BT)
        next_B = level_BT.where(left_BT, -1.0).argmax(1)
        leaves_BT = left_BT & one_hot(next_B, ids_BT.shape[1]).bool()
        chosen_N = choose(logits_at(task.rack, ids_BT, leaves_BT), task.temperature, task.generator)
        ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N)
        yield ids_BT


def hitting_levels(task: Task) -> Tensor:
    """The noise level at which each position leaves, (B, T), float64, uniform on [0, 1)."""
    return task.uniform()
