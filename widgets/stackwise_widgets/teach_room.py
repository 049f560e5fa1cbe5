"""What is taught, and what Teach says where this machine has no room for it: what counts, why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import stackwise as sw
from stackwise.memory.bytes import on_card, plan_rows
from stackwise.memory.room import device_bytes, most_bytes
from stackwise.report import bytes_text
from stackwise.stepping.beginning import experiment_of, placement_of, plainly
from stackwise.training.start import stages_of

if TYPE_CHECKING:
    from stackwise.placement import Placement

TRUNKS = {
    "streamed": "has a few frozen blocks in memory at a time",
    "cached": "reads what the frozen blocks put out, and has none of them in memory",
}


def taught(source: sw.Run | sw.Experiment | str) -> tuple[sw.Experiment, tuple[sw.Stage, ...]]:
    """What is taught, and its stages as they are executed.

    Raises:
        ExperimentError: If there is no such preset.
    """
    exp = experiment_of(source)
    return exp, stages_of(source) if isinstance(source, sw.Run) else sw.stages(sw.timed(exp))


def room_said(source: sw.Run | sw.Experiment | str, placement: Placement | None) -> str:
    """Why a step cannot be taken here for want of memory; empty if that is not why.

    Args:
        source: What is taught.
        placement: How its steps are carried out; None for its own.
    """
    exp, stages = taught(source)
    asked = placement or placement_of(source)
    plain, _ = plainly(asked)
    takes, has = most_bytes(plan_rows(exp, plain, stages)), device_bytes(plain)
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
    takes = most_bytes(plan_rows(exp, asked, stages))
    return (
        f" The plan's {bytes_text(takes)} are of a run with placement.trunk={asked.trunk}, which "
        f"{TRUNKS[asked.trunk]}; a step that is watched block by block has all of them there."
    )
