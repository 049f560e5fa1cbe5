"""Sampling through depth: band by band, each with the stacks that were trained for its noise.

For racks trained with noise bands (time-as-depth). Where other samplers take each sample's path by
its own masked fraction, this one runs one band for all samples until none of them is in it, so
that the stacks of the other bands need not be there meanwhile.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field
from torch import Tensor

from stackwise.choice import Params
from stackwise.sampling.ranked import check_per_step, commit
from stackwise.sampling.task import Task


class ThroughDepth(Params):
    """The heaviest noise band first: run its stacks until the text has left it, then the next.

    Follows the bands' distribution with one position per step and any rule but confidence.
    """

    kind: Literal["through_depth"] = "through_depth"
    rule: Literal["random", "confidence", "margin", "entropy"] = Field(
        "random", description="which positions a step commits first"
    )
    per_step: int | None = Field(
        None,
        ge=1,
        description="positions per step; empty: as many as the number of steps asks, or one",
    )


def through_depth(task: Task, params: ThroughDepth) -> Iterator[Tensor]:
    """Commit tokens until the masked fraction reaches the band's lower edge, then go on.

    Raises:
        ValueError: If the rack has no noise bands, there are fewer steps than bands with masks, or
            both `per_step` and the number of steps are given.
    """
    check_per_step(params, task.steps)
    if len(task.rack.bands) < 2:
        raise ValueError(
            "method: 'through_depth' goes from band to band, and this rack has no noise bands; use "
            "another sampler, or train with masking.bands=linear and curriculum=right_to_left"
        )
    takes = takes_of(task, params)
    if task.steps is not None and sum(map(len, takes)) > max(task.steps, 1):
        raise ValueError(
            f"steps: {task.steps} < {len(takes)} noise bands; give {len(takes)} or more, or leave "
            "it out for one per token"
        )
    return _each(task, params, takes)


def _each(task: Task, params: ThroughDepth, takes: list[list[Tensor]]) -> Iterator[Tensor]:
    ids_BT = task.ids_BT
    for band in takes:
        for take_B1 in band:
            ids_BT = commit(task, ids_BT, params.rule, take_B1)
            yield ids_BT


def takes_of(task: Task, params: ThroughDepth) -> list[list[Tensor]]:
    """How many positions each sample commits, (B, 1), at each step of each band with masks."""
    left_B1, tokens = task.masked(task.ids_BT).sum(1, keepdim=True), task.ids_BT.shape[1]
    # A mask outside the positions to fill stays, and counts towards the noise as any other.
    rest_B1 = (task.ids_BT == task.rack.mask_id).sum(1, keepdim=True) - left_B1
    jobs = []
    for low, _, _ in sorted(task.rack.bands, reverse=True):
        edge = max(count for count in range(tokens + 1) if count / tokens <= low)
        take_B1 = (left_B1 + rest_B1 - edge).clamp_min(0).minimum(left_B1)
        left_B1 = left_B1 - take_B1
        if take_B1.any():
            jobs.append(take_B1)
    steps = shares([int(job.max()) for job in jobs], params.per_step, task.steps)
    return [
        [job * (i + 1) // count - job * i // count for i in range(count)]
        if params.per_step is None
        else [(job - i * params.per_step).clamp(0, params.per_step) for i in range(count)]
        for job, count in zip(jobs, steps, strict=True)
    ]


def shares(masks: list[int], per_step: int | None, steps: int | None) -> list[int]:
    """Steps of each band: one per so many masks, or a share by masks, at least one each."""
    if per_step is not None or steps is None:
        return [-(-count // (per_step or 1)) for count in masks]
    spare, total, done, found = max(0, steps - len(masks)), sum(masks), 0, []
    for count in masks:
        found.append(1 + spare * (done + count) // total - spare * done // total)
        done += count
    return found
