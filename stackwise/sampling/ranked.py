"""Samplers that commit a number of positions at each step, those that a rule ranks first.

    confidence   probability of the token that was chosen    MaskGIT 2202.04200; LLaDA 2502.09992
    margin       probability of the best token less the next Kim et al. 2502.06768
    entropy      minus the entropy of the prediction         Dream 2508.15487
    random       a random number                             any-order models 2110.02037

With one position per step `margin`, `entropy` and `random` follow the law of a rack that knows
every conditional: which position comes next depends on what is visible, and the chain rule holds in
any such order. `confidence` does not, however small its steps: its order depends on the tokens that
were drawn, and those that were likely are kept. Nor does any of them with more than one per step,
since these are drawn independently of each other.

Shapes: B samples, T tokens, N masked positions, V entries of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from stackwise.choice import Params, unread
from stackwise.sampling.ancestral import OverTime, over_time
from stackwise.sampling.choosing import choose, logits_at
from stackwise.sampling.task import Task

Rule = Callable[[Tensor, Tensor], Tensor]
EVENLY = "linear"


class Ranked(Params):
    """What these samplers have in common: how many positions a step commits."""

    kind: str
    per_step: int | None = Field(
        None, ge=1, description="positions per step; empty: as many as the number of steps asks"
    )
    schedule: OverTime = Field(
        EVENLY,
        description="schedule over time that spreads the masks over the steps; cosine is MaskGIT's",
    )

    @model_validator(mode="after")
    def _all_read(self) -> Self:
        if self.per_step is not None:
            for line in unread(self, "schedule", f"per_step={self.per_step}"):
                raise ValueError(line)
        return self


class Confidence(Ranked):
    """The same number of positions at each step, those whose choice is most probable.

    MaskGIT (arXiv 2202.04200), without its noise on the confidence; LLaDA's low-confidence
    remasking (2502.09992). Often better text than `ancestral` at few steps, but not the rack's
    distribution.
    """

    kind: Literal["confidence"] = "confidence"


class Margin(Ranked):
    """Those first whose best token is furthest from the next (Kim et al., arXiv 2502.06768)."""

    kind: Literal["margin"] = "margin"


class Entropy(Ranked):
    """Those first whose prediction has the least entropy (Dream, arXiv 2508.15487)."""

    kind: Literal["entropy"] = "entropy"


class Random(Ranked):
    """Positions in random order, as an any-order model fills them (arXiv 2110.02037)."""

    kind: Literal["random"] = "random"


def confidence_rule(logits_NV: Tensor, chosen_N: Tensor) -> Tensor:
    """Probability of what was chosen, (N,)."""
    return logits_NV.double().softmax(-1).gather(1, chosen_N[:, None])[:, 0]


def margin_rule(logits_NV: Tensor, chosen_N: Tensor) -> Tensor:
    """Probability of the best token less that of the next, (N,)."""
    best_NV = logits_NV.double().softmax(-1).topk(min(2, logits_NV.shape[1]), dim=-1).values
    return best_NV[:, 0] - best_NV[:, 1:].sum(-1)


def entropy_rule(logits_NV: Tensor, chosen_N: Tensor) -> Tensor:
    """Minus the entropy in nats, (N,)."""
    return -torch.special.entr(logits_NV.double().softmax(-1)).sum(-1)


RULES: dict[str, Rule | None] = {
    "confidence": confidence_rule,
    "margin": margin_rule,
    "entropy": entropy_rule,
    "random": None,
}


def ranked(task: Task, params: Ranked) -> Iterator[Tensor]:
    """Spread the masks over the steps; commit those that the rule ranks first.

    Raises:
        ValueError: If both `per_step` and the number of steps are given.
    """
    check_per_step(params, task.steps)
    return _each(task, params)


def check_per_step(params: Params, steps: int | None) -> None:
    """Refuse two numbers that say the same thing.

    Raises:
        ValueError: If the parameters have `per_step` and the caller gave `steps`.
    """
    each = getattr(params, "per_step", None)
    if each is not None and steps is not None:
        raise ValueError(
            f"steps: {steps} and method.per_step={each} both say how many positions a step "
            "commits; leave one of them out"
        )


def _each(task: Task, params: Ranked) -> Iterator[Tensor]:
    ids_BT, count_B1 = task.ids_BT, task.fill_BT.sum(1, keepdim=True)
    for done_B1 in committed(count_B1, params, task.steps):
        left_B1 = task.masked(ids_BT).sum(1, keepdim=True)
        ids_BT = commit(task, ids_BT, params.kind, done_B1 - (count_B1 - left_B1))
        yield ids_BT


def committed(count_B1: Tensor, params: Ranked, steps: int | None) -> Iterator[Tensor]:
    """How many of each sample's positions are committed after each step.

    Of n masks at most n alpha after a step, so that the masked fraction never falls under the
    schedule's; for `linear` these are n (i + 1) // steps.
    """
    most = int(count_B1.max())
    if params.per_step is not None:
        for done in range(params.per_step, most + params.per_step, params.per_step):
            yield count_B1.clamp_max(done)
        return
    steps = steps or most
    alpha = over_time(params.schedule).alpha(np.linspace(1, 0, steps + 1)[1:])
    for step, visible in enumerate(alpha, 1):
        if params.schedule == EVENLY:
            yield count_B1 * step // steps
        else:
            yield count_B1 if step == steps else (count_B1 * visible + 1e-9).long()


def commit(task: Task, ids_BT: Tensor, rule: str, take_B1: Tensor) -> Tensor:
    """Fill `take_B1` more positions of each sample, those that the rule ranks first."""
    open_BT = task.masked(ids_BT) & (take_B1 > 0)
    if not open_BT.any():
        return ids_BT
    score = RULES[rule]
    sure_BT = torch.full(ids_BT.shape, -torch.inf, dtype=torch.float64, device=ids_BT.device)
    if score is None:
        leaves_BT = first(task.uniform().where(open_BT, sure_BT), take_B1)
        logits_NV = logits_at(task.rack, ids_BT, leaves_BT)
        return ids_BT.masked_scatter(leaves_BT, choose(logits_NV, task.temperature, task.generator))
    logits_NV = logits_at(task.rack, ids_BT, open_BT)
    chosen_N = choose(logits_NV, task.temperature, task.generator)
    sure_BT[open_BT] = score(logits_NV, chosen_N)
    leaves_BT = first(sure_BT, take_B1)
    return ids_BT.masked_scatter(leaves_BT, chosen_N[leaves_BT[open_BT]])


def first(score_BT: Tensor, take_B1: Tensor) -> Tensor:
    """The positions with the `take_B1` highest scores of each sample, (B, T), bool."""
    return score_BT.argsort(dim=1, descending=True, stable=True).argsort(1) < take_B1
