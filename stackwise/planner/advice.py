"""What to change of an experiment that does not fit a machine.

First what changes no number: smaller pieces, recomputation, frozen stacks that are read as they are
needed. Then what does: fewer bytes per weight and moment, and a curriculum that trains one stack at
a time. Changes are added one after the other until it fits, then those that were not needed are
taken back; so what is left is needed, all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError
from stackwise.planner.needs import Needs, needs
from stackwise.planner.units import gb, gib

if TYPE_CHECKING:
    from stackwise.planner.plan import Plan

Change = Mapping[str, Any]
PLACING: tuple[Change, ...] = (
    {"placement.micro_batch": 1},
    {"placement.checkpointing": True},
    {"placement.trunk": "streamed"},
    {"placement.stream_from": "disk"},
    {"placement.keep_stages": False},
)
SCIENCE: tuple[Change, ...] = (
    {"optim.ema": None},
    {"optim.name": "adamw8bit"},
    {"precision.compute": "bfloat16", "precision.weights": "bfloat16"},
    {"precision.rounding": "stochastic"},
    {"curriculum": "left_to_right"},
    {"precision.frozen": "nf4", "precision.master": "bf16"},
)


def advice_for(found: Plan) -> Iterator[str]:
    """Changes that make a plan fit, as they are typed, with what it takes then.

    Those of the placement alone, if they are enough; else with the fewest of the experiment's.
    """
    known: dict[str, Needs | None] = {}
    for kinds in (PLACING, (*PLACING, *SCIENCE)):
        chosen = needed(found, kinds, known)
        if chosen:
            taken = known[typed(chosen)]
            assert taken is not None
            then = f"{gib(taken.peak_bytes)}, {gb(taken.disk_bytes)} of disk"
            yield f"{typed(chosen)}  ({then})"
            return


def needed(found: Plan, kinds: tuple[Change, ...], known: dict[str, Needs | None]) -> list[Change]:
    """Of some changes those without which it would not fit; none if all are not enough.

    What some need is looked up in `known`, and written there.
    """

    def after_some(changes: Sequence[Change]) -> Needs | None:
        if typed(changes) not in known:
            known[typed(changes)] = after(found, changes)
        return known[typed(changes)]

    chosen = list[Change]()
    for change in kinds:
        taken = after_some([*chosen, change])
        if taken is None:
            continue
        chosen.append(change)
        if taken.fits(found.hardware):
            break
    else:
        return []
    for change in list(chosen[:-1]):
        rest = [other for other in chosen if other is not change]
        taken = after_some(rest)
        if taken is not None and taken.fits(found.hardware):
            chosen = rest
    return chosen


def after(found: Plan, changes: Sequence[Change]) -> Needs | None:
    """What is needed with some changes; None if that cannot be, or is nothing else."""
    keys = {key: value for change in changes for key, value in change.items()}
    placing = {k.partition(".")[2]: v for k, v in keys.items() if k.startswith("placement.")}
    science = {key: value for key, value in keys.items() if not key.startswith("placement.")}
    try:
        exp = found.experiment.replace(**science)
        placement = found.placement.replace(**placing)
        if (exp, placement) == (found.experiment, found.placement):
            return None
        samples = found.epoch_samples
        return needs(exp, placement, machine=found.hardware, epoch_samples=samples)
    except ExperimentError:
        return None


def typed(changes: Sequence[Change]) -> str:
    """Changes as they stand on a command line."""
    words = {None: "null", True: "true", False: "false"}
    return " ".join(
        f"{key}={words.get(value, value) if value is None or isinstance(value, bool) else value}"
        for change in changes
        for key, value in change.items()
    )
