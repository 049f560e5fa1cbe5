"""ReMDM: ancestral sampling in which a position that is filled may be masked again.

With alpha_t the share of visible tokens at time t, and s the next time, a filled position is
masked again with probability sigma, and a masked one stays with

    (1 - alpha_s - sigma alpha_t) / (1 - alpha_t)        sigma <= min(1, (1 - alpha_s) / alpha_t)

so that whatever sigma is, if it is the same for all, the share of visible tokens after the step is
alpha_s (Wang et al., arXiv 2503.00307, theorem 3.1, equations 6 and 7). With sigma 0 this is
`ancestral`.

Shapes: B samples, T tokens, N positions that leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from stackwise.choice import Params, unread
from stackwise.sampling.ancestral import OverTime, over_time
from stackwise.sampling.choosing import choose, logits_at
from stackwise.sampling.task import Task
from stackwise.schedules import Float


class Remask(Params):
    """Ancestral sampling that takes back some of what is filled, and fills it again.

    ReMDM (arXiv 2503.00307). With `sigma` small enough per step, and many steps, the
    rack's distribution; else a corrector, which can mend what was chosen together by chance.
    """

    kind: Literal["remask"] = "remask"
    sigma: Literal["cap", "rescale"] = Field(
        "cap", description="cap: min(eta, the largest sigma); rescale: eta times the largest"
    )
    eta: float = Field(0.02, ge=0, le=1, description="how much is masked again at each step")
    confidence: bool = Field(
        False,
        description="share sigma out over the filled tokens of a sample, more to what was chosen "
        "at a low probability: at most sigma tokens a step; the paper's runs are sigma=rescale, "
        "eta=1",
    )
    when: Literal["always", "switch", "loop"] = Field(
        "always",
        description="switch: from time t_on down; loop: between t_on and t_off, alpha held",
    )
    t_on: float = Field(0.55, gt=0, lt=1, description="time from which on it masks again")
    t_off: float = Field(0.05, gt=0, lt=1, description="time from which on it stops, of a loop")
    alpha_on: float = Field(0.9, gt=0, lt=1, description="visible share held in the loop")
    schedule: OverTime = Field("linear", description="schedule over time whose times are the steps")

    @model_validator(mode="after")
    def _all_read(self) -> Self:
        idle = {"always": ("t_on", "t_off", "alpha_on"), "switch": ("t_off", "alpha_on")}
        wrong = [
            line
            for key in idle.get(self.when, ())
            for line in unread(self, key, f"when={self.when}")
        ]
        if self.when == "loop" and self.t_off >= self.t_on:
            wrong.append(f"t_off: {self.t_off} must be under t_on={self.t_on}; 0.05 is usual")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self


def remask(task: Task, params: Remask) -> Iterator[Tensor]:
    """Fill and take back by chance as time falls from 1 to 0; the last step takes nothing back."""
    ids_BT, steps = task.ids_BT, task.steps or task.most
    time_S = np.linspace(1, 0, steps + 1)
    prob_BT = torch.zeros(ids_BT.shape, dtype=torch.float64, device=ids_BT.device)
    for time, (before, after) in zip(time_S, pairwise(visible(params, time_S)), strict=False):
        masked_BT = task.masked(ids_BT)
        sigma_BT = shared(sigma_at(params, time, before, after), params, prob_BT, task, masked_BT)
        stays_BT = (1 - after - sigma_BT * before) / (1 - before)
        u_BT = task.uniform()
        leaves_BT = masked_BT & (u_BT >= stays_BT)
        returns_BT = task.fill_BT & ~masked_BT & (u_BT < sigma_BT)
        if leaves_BT.any():
            logits_NV = logits_at(task.rack, ids_BT, leaves_BT)
            chosen_N = choose(logits_NV, task.temperature, task.generator)
            ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N)
            prob_NV = logits_NV.double().softmax(-1)
            prob_BT = prob_BT.masked_scatter(leaves_BT, prob_NV.gather(1, chosen_N[:, None])[:, 0])
        ids_BT = ids_BT.masked_fill(returns_BT, task.rack.mask_id)
        yield ids_BT


def visible(params: Remask, time_S: Float) -> Float:
    """Alpha at falling times; in a loop up to alpha_on until t_on, held until t_off, then to 1.

    Source: section 4.2 of the paper, which holds alpha; the ramps are those of the authors' code
    for the linear schedule.
    """
    alpha = over_time(params.schedule).alpha
    if params.when != "loop":
        return alpha(time_S)
    early_S = np.clip((time_S - params.t_on) / (1 - params.t_on), 0, 1)
    late_S = np.clip(time_S / params.t_off, 0, 1)
    held = params.alpha_on
    return np.where(time_S > params.t_off, held * alpha(early_S), held + (1 - held) * alpha(late_S))


def sigma_at(params: Remask, time: float, before: float, after: float) -> float:
    """Sigma of the step that begins at `time`, from alpha `before` it to alpha `after` it.

    Source: section 4.1 of the paper (cap, rescale) and 4.2 (switch, loop).
    """
    if params.when != "always" and time > params.t_on:
        return 0.0
    if params.when == "loop" and time <= params.t_off:
        return 0.0
    largest = min(1.0, (1 - after) / before) if before > 0 else 1.0
    return min(params.eta, largest) if params.sigma == "cap" else params.eta * largest


def shared(sigma: float, params: Remask, prob_BT: Tensor, task: Task, masked_BT: Tensor) -> Tensor:
    """Sigma at each position, (B, T).

    With `confidence` each filled position gets the share exp(-p) / sum of exp(-p) over all filled
    ones, p the probability at which it was chosen last; masked ones get none (section 4.1).
    """
    sigma_BT = torch.full_like(prob_BT, sigma)
    if not params.confidence:
        return sigma_BT
    filled_BT = task.fill_BT & ~masked_BT
    share_BT = (-prob_BT).masked_fill(~filled_BT, -torch.inf).softmax(1)
    return sigma_BT * share_BT.where(filled_BT, 0.0)
