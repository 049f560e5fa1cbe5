"""What a run's checkpoints hold of it: the rack, and what resuming needs.

In `rack/` each part (`s0`) has its weights, and while it trains its moments (`s0.optimizer`) and
its moving average (`s0.average`), and as the stage before left it, where the stage is held to that
(`s0.before`). Between stages the moments remain where they are kept; else, of
bfloat16 weights that train again, the lower halves of their exact values. Where masters are kept,
`s0.master` has the weights that a stack frozen to less trains on with and is exported from. The
counters stand in the manifest. `best/` has the weights that the last stage trains, where their
held-out loss was lowest (`bests.py`).

How their files are written and committed is in `checkpoint.py`, which older ones stay in
`earlier.py`, how a run is put back to one in `restoring.py`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict

import torch

from stackwise.adapters import SUFFIX
from stackwise.completion import packing
from stackwise.runs.records import MANIFEST
from stackwise.stage import keeps_state, trained_next, trains
from stackwise.training.checkpoint import Part, Written, save
from stackwise.training.earlier import forget_earlier, keep_present
from stackwise.training.manifest import read_manifest
from stackwise.training.norms import all_finite
from stackwise.training.optim import carried, optimizer_state
from stackwise.training.ownership import RACK
from stackwise.training.part_names import AVERAGE, BEFORE, MASTER, MOMENTS, holds_weights, split
from stackwise.training.step import Trainee
from stackwise.training.trained import tensors_of
from stackwise.training.work import Work

Parts = Mapping[str, Part]

MASTERS = {"none": None, "bf16": torch.bfloat16, "fp32": torch.float32}


class BrokenWeights(FloatingPointError):
    """A weight that is no number, found before it was saved.

    Args:
        part: Of which part: `s0`.
        tensor: Of which tensor in it.
    """

    def __init__(self, part: str, tensor: str) -> None:
        super().__init__(f"a weight of {part}.{tensor} is no number")
        self.part, self.tensor = part, tensor


def check_weights(trainee: Trainee) -> None:
    """Raise unless all that trains is made of numbers: nothing else may become a checkpoint.

    Raises:
        BrokenWeights: If it is not.
    """
    for (part, tensor), parameter in trainee.named.items():
        if not all_finite(parameter):
            raise BrokenWeights(part, tensor)


def save_work(work: Work, trainee: Trainee) -> None:
    """Write a checkpoint in the middle of a stage: weights, moments and averages.

    Raises:
        BrokenWeights: If a weight is no number; the last checkpoint stays.
    """
    check_weights(trainee)
    states = optimizer_state(trainee.optimizer, trainee.named)
    parts: dict[str, Part] = {f"{part}.{MOMENTS}": state for part, state in states.items()}
    if trainee.average is not None:
        work.at.updates = trainee.average.updates
        for part, tensors in trainee.average.state().items():
            parts[f"{part}.{AVERAGE}"] = tensors
    kept = listed(work)
    for part, tensors in trainee.holding.state().items() if trainee.holding else ():
        if f"{part}.{BEFORE}" not in kept:  # it never changes
            parts[f"{part}.{BEFORE}"] = tensors
    trained = {part for part, _ in trainee.named}
    commit(work, trainee.number, {**weights_of(work, trained), **parts}, trained)
    if work.pacer is not None:
        work.pacer.laps.save()


def save_border(work: Work, trainee: Trainee, masters: Mapping[str, Written]) -> None:
    """Write a checkpoint at the end of a stage: weights, and what later stages come back for.

    Args:
        work: The run.
        trainee: What trained in the stage.
        masters: Those of the stacks that have just been frozen to less, if they are kept.
    """
    trained, number = {part for part, _ in trainee.named}, trainee.number
    states = optimizer_state(trainee.optimizer, trainee.named)
    parts: dict[str, Part] = {
        f"{part}.{MOMENTS}": state
        for part, state in carried(states, work.stages, number).items()
        if part not in work.packed or keeps_state(work.stages, number, part)  # else by its master
    }
    parts |= {f"{part}.{MASTER}": tensors for part, tensors in masters.items()}
    commit(work, number, {**weights_of(work, trained), **parts}, trained)


def save_parts(work: Work, number: int, chosen: set[str], masters: Mapping[str, Written]) -> None:
    """Write the weights of some parts; everything else of the last checkpoint stays valid."""
    parts = tensors_of(work.rack.parts(), lambda part: part in chosen)
    kept = {f"{part}.{MASTER}": tensors for part, tensors in masters.items()}
    write(work, number, {**parts, **kept}, listed(work))


def weights_of(work: Work, trained: set[str]) -> Parts:
    """The weights of the parts whose file is not right: those that train, and those without one."""
    return tensors_of(work.rack.parts(), lambda k: k in trained or k not in work.on_disk)


def commit(work: Work, number: int, parts: Parts, trained: set[str]) -> None:
    """Write these parts, and keep those of the last checkpoint that are still wanted."""
    unchanged = {name for name in listed(work) if still_wanted(work, number, name)}
    unchanged -= {f"{part}.{kind}" for part in trained for kind in (MOMENTS, AVERAGE, MASTER)}
    write(work, number, parts, unchanged)


def listed(work: Work) -> set[str]:
    """The parts of the last checkpoint; none before the first."""
    folder = work.run.path / RACK
    return set(read_manifest(folder)["parts"]) if (folder / MANIFEST).exists() else set()


def write(work: Work, number: int, parts: Parts, unchanged: set[str]) -> None:
    """Write a checkpoint of these parts, and of those of the last one that are `unchanged`."""
    if work.pacer is not None:
        work.at.worked = work.pacer.clock.seconds()
    events = work.writer.events.count
    work.writer.settle()  # no step that a checkpoint stands on may be missing from the metrics
    keep_present(work)
    save(
        work.run.path / RACK,
        parts,
        unchanged=unchanged - parts.keys(),
        written_in=number,
        formats={name: str(packing(work.exp.precision)) for name in parts if name in work.packed},
        run=work.identity,
        counters=asdict(work.at),
        events=events,
    )
    forget_earlier(work)
    work.on_disk |= {name for name in parts if holds_weights(name)}
    work.saved_at = time.monotonic()
    if work.mirror is not None:
        work.mirror.note()


def still_wanted(work: Work, number: int, name: str) -> bool:
    """Whether a part of the last checkpoint, not written now, belongs into this one."""
    part, kind = split(name)
    if part.endswith(SUFFIX) and trains(work.stages[number], part.removesuffix(SUFFIX)):
        return False  # it has been merged into the stack, which trains
    later = trained_next(work.stages, number, part) is not None
    later = later or keeps_state(work.stages, number, part)
    held = kind == BEFORE and work.at.step > 0  # no longer than its stage
    return kind in ("", MASTER) or (kind == MOMENTS and later) or held
