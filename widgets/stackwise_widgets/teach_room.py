"""What Teach says of a rack for which this machine has no room: what it counts, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

import stackwise as sw
from stackwise.memory.bytes import on_card, plan_rows
from stackwise.memory.room import machine_bytes
from stackwise.report import bytes_text
from stackwise.stepping.beginning import experiment_of, placement_of, plainly

if TYPE_CHECKING:
    from stackwise.placement import Placement

TRUNKS = {
    "streamed": "has a few frozen blocks in memory at a time",
    "cached": "reads what the frozen blocks put out, and has none of them in memory",
}


def room_said(source: sw.Run | sw.Experiment | str, placement: Placement | None) -> str:
    """Why a step cannot be taken here for want of memory; empty if that is not why.

    Args:
        source: What is taught.
        placement: How its steps are carried out; None for its own.
    """
    exp, asked = experiment_of(source), placement or placement_of(source)
    stages = _stages(source, exp)
    plain, _ = plainly(asked)
    takes, has = _most(plan_rows(exp, plain, stages)), _room(plain)
    if has is None or takes <= has:
        return ""
    return (
        "rack: Teach holds all of it in this process, frozen blocks too, beside the gradients, the "
        f"optimizer and the activations of a step: {bytes_text(takes)} by arithmetic, and this "
        f"{'card' if on_card(plain) else 'machine'} has {bytes_text(has)}."
        f"{_planned(exp, asked, stages)} Choose a smaller rack to look into."
    )


def _planned(exp: sw.Experiment, asked: Placement, stages: Sequence[sw.Stage]) -> str:
    """What a run takes instead, where it does not hold its trunk."""
    if asked.trunk not in TRUNKS:
        return ""
    takes = _most(plan_rows(exp, asked, stages))
    return (
        f" The plan's {bytes_text(takes)} are of a run with placement.trunk={asked.trunk}, which "
        f"{TRUNKS[asked.trunk]}; a step that is watched block by block has all of them there."
    )


def _most(rows: Sequence[Mapping[str, Any]]) -> int:
    return int(max(row["peak_bytes"] for row in rows))


def _room(placement: Placement) -> int | None:
    """Bytes that the device has in all; None where the system does not say."""
    return int(torch.cuda.mem_get_info()[1]) if on_card(placement) else machine_bytes()


def _stages(source: sw.Run | sw.Experiment | str, exp: sw.Experiment) -> tuple[sw.Stage, ...]:
    if isinstance(source, sw.Run):
        return tuple(map(sw.Stage.model_validate, source.stages()))
    return sw.stages(exp)
