"""Ancestral sampling: reverse the noise process from time 1 to 0.

Shapes: B samples, T tokens, N positions that leave.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field
from torch import Tensor

from stackwise.choice import Params, parse
from stackwise.errors import ExperimentError
from stackwise.sampling.choosing import choose, logits_at
from stackwise.sampling.task import Task
from stackwise.schedules import (
    SCHEDULES,
    TimeSchedule,
    names_of,
    schedule_kind,
    time_schedule,
)


def over_time(schedule: str) -> TimeSchedule:
    """The schedule over time that a text names: `cosine`, `polynomial:3`.

    Raises:
        ExperimentError: If it is unknown, or runs over progress.
    """
    params = parse(SCHEDULES, schedule, "schedule", "name")
    if schedule_kind(params.choice) != "time":
        raise ExperimentError(
            f"{params.choice} runs over training progress, not over diffusion time; use "
            f"{', '.join(names_of('time'))}"
        )
    return time_schedule(params)


def _known(schedule: str) -> str:
    over_time(schedule)
    return schedule


OverTime = Annotated[str, AfterValidator(_known)]  # names a schedule over time


class Ancestral(Params):
    """Reverse the noise process, from time t to s: a mask stays with (1 - alpha_s)/(1 - alpha_t).

    Exact in the limit of many steps (MDLM, arXiv 2406.07524).
    """

    kind: Literal["ancestral"] = "ancestral"
    schedule: OverTime = Field("linear", description="schedule over time whose times are the steps")


def ancestral(task: Task, params: Ancestral) -> Iterator[Tensor]:
    """Unmask each position by chance as time falls from 1 to 0.

    The logits are a function of the ids, so those of the last read stay right until a position
    leaves. Which ones leave does not depend on logits: so nothing is read, nor kept, until then,
    and a sample is read at most once for each mask, however many steps there are.
    """
    ids_BT, steps = task.ids_BT, task.steps or task.most
    masked_prob = 1 - over_time(params.schedule).alpha(np.linspace(1, 0, steps + 1))
    for before, after in pairwise(masked_prob):
        leaves_BT = task.masked(ids_BT) & (task.uniform() >= after / before)
        if leaves_BT.any():
            chosen_N = choose(
                logits_at(task.rack, ids_BT, leaves_BT), task.temperature, task.generator
            )
            ids_BT = ids_BT.masked_scatter(leaves_BT, chosen_N)
        yield ids_BT
