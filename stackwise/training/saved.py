"""What a run's checkpoints hold of it: the rack, and what resuming needs.

In `rack/` each part (`s0`) has its weights, and while it trains its moments (`s0.optimizer`) and
its moving average (`s0.average`), and as the stage before left it, where the stage is held to that
(`s0.before`). Between stages the moments remain where they are kept; else, of
bfloat16 weights that train again, the lower halves of their exact values. Where masters are kept,
`s0.master` has the weights that a stack frozen to less trains on with and is exported from. The
counters stand in the manifest. `best/` has the weights that the last stage trains, where their
held-out loss was lowest (`bests.py`).

How their files are written and committed is in `checkpoint.py`, which older ones stay in
`earlier.py`, how a part's tensors become a module again in `parts.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch

from stackwise.adapters import SUFFIX, carried_after
from stackwise.by_stage import in_blocks
from stackwise.completion import packing
from stackwise.model.adapters import put_on, take_off
from stackwise.model.rack import Rack
from stackwise.runs import Run
from stackwise.stage import Stage, keeps_state, paths_so_far, trained_next, trains
from stackwise.training.bests import best_home
from stackwise.training.checkpoint import (
    MANIFEST,
    RESTORE,
    CheckpointError,
    NoCheckpoint,
    Part,
    Written,
    holds_weights,
    read_manifest,
    read_part,
    save,
    verify_part,
)
from stackwise.training.earlier import forget_earlier, home_at, keep_present
from stackwise.training.norms import all_finite
from stackwise.training.optim import carried, optimizer_state
from stackwise.training.ownership import BEST as BEST
from stackwise.training.ownership import RACK as RACK
from stackwise.training.ownership import own_manifest
from stackwise.training.parts import built_alike, check_held, empty_rack, fill, put
from stackwise.training.start import stages_of
from stackwise.training.step import Trainee
from stackwise.training.trained import State, tensors_of
from stackwise.training.work import Counters, Work
from stackwise.trunk.shelf import Shelf

Parts = Mapping[str, Part]

MOMENTS, AVERAGE, MASTER, BEFORE = "optimizer", "average", "master", "before"
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
        events=work.writer.events.count,
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


def split(name: str) -> tuple[str, str]:
    """A part and what a file has of it: `s1.adapter.optimizer` is `optimizer` of `s1.adapter`."""
    part, _, kind = name.rpartition(".")
    return (name, "") if holds_weights(name) else (part, kind)


def restore(work: Work) -> None:
    """Put a run back to where its last checkpoint was written; its stacks are still empty.

    All that its manifest lists is compared with its hash now, or as the stage in hand is entered:
    nothing trains before, and no later stage finds damage that was there already.

    Raises:
        CheckpointError: If a file is missing, cut, altered, or of another run.
    """
    folder = work.run.path / RACK
    manifest = own_manifest(work.run, RACK)
    if (work.run.path / BEST / MANIFEST).exists():
        own_manifest(work.run, BEST)
    for name in manifest["parts"]:
        if not read_on_entering(manifest, name):
            verify_part(folder, manifest, name)
    work.at = Counters(**manifest["counters"])
    check_stage(work.at, work.stages, manifest)
    for name in filter(holds_weights, manifest["parts"]):
        if name.endswith(SUFFIX):
            tensors = read_part(folder, manifest, name, verify=False)
            work.adapters[name.removesuffix(SUFFIX)] = tensors
        elif name in ("embedding", "head"):
            put(work.rack, name, read_part(folder, manifest, name, verify=False), folder)
        else:
            work.rack.add(name, empty=True)
            work.empty.add(name)
        work.on_disk.add(name)
        if manifest["parts"][name].get("format"):
            work.packed.add(name)
    work.writer.event("resumed", stage=work.at.stage, step=work.at.total_steps)


def read_on_entering(manifest: Mapping[str, Any], name: str) -> bool:
    """Whether every stage that is entered reads and verifies a part: a stack without a master."""
    ends = ("embedding", "head")
    return "." not in name and name not in ends and f"{name}.{MASTER}" not in manifest["parts"]


def read_state(work: Work, kind: str, parts: set[str]) -> State:
    """Moments or averages of some parts, as far as the last checkpoint has them.

    They are mapped from their files, so that beside what they are copied into nothing is held. In
    the middle of a stage they have just been verified as the run was restored.

    Raises:
        CheckpointError: If a file is missing, cut or altered.
    """
    folder = work.run.path / RACK
    if not (folder / MANIFEST).exists():
        return {}
    manifest, border = read_manifest(folder), work.at.step == 0
    found = {part for part in parts if f"{part}.{kind}" in manifest["parts"]}
    return {
        part: read_part(folder, manifest, f"{part}.{kind}", verify=border) for part in sorted(found)
    }


def put_adapters(
    rack: Rack,
    folder: Path,
    manifest: Mapping[str, Any],
    begun: Sequence[Stage],
    *,
    raw: bool = False,
) -> None:
    """Give a rack the adapters that a checkpoint has, at their moving average unless `raw`.

    Args:
        rack: Has the stacks; an adapter that one has is taken off.
        folder: The checkpoint's.
        manifest: Its manifest.
        begun: The stages that had begun by then: what was carried is theirs to say.
        raw: The weights without averaging.
    """
    for stack, adapter in carried_after(begun).items():
        if adapter.part not in manifest["parts"]:
            continue
        tensors = read_part(folder, manifest, adapter.part)
        if not raw and f"{adapter.part}.{AVERAGE}" in manifest["parts"]:
            tensors |= read_part(folder, manifest, f"{adapter.part}.{AVERAGE}")
        take_off(rack.stacks[stack])
        with built_alike(folder, adapter.part):
            put_on(rack.stacks[stack], adapter, tensors=tensors)


def averages_in(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The parts of which a checkpoint holds a moving average."""
    for name in manifest["parts"]:
        part, kind = split(name)
        if kind == AVERAGE:
            yield part


def check_stage(at: Counters, stages: Sequence[Stage], manifest: Mapping[str, Any]) -> None:
    """Compare how far a checkpoint says it is with the stages and with the parts that it has.

    Raises:
        CheckpointError: If it has none of a stack that those stages run, or is after the last.
    """
    begun = stages[: at.stage + (at.step > 0)]
    lost = {stack for stage in begun[-1:] for stack in stage.path} - manifest["parts"].keys()
    if lost or at.stage > len(stages) or (at.total_steps and not begun):
        raise CheckpointError(f"{RACK}/{MANIFEST}: is of another stage than its parts; {RESTORE}")


def read_rack(
    run: Run,
    *,
    best: bool | int = False,
    raw: bool = False,
    device: torch.device | None = None,
    lent: Literal["disk", "host"] | None = None,
    checkpoint: int | None = None,
) -> Rack:
    """The model of a run's last checkpoint or an earlier one, or the best one of its last stage.

    What trains is read at its moving average where there is one, unless `raw` weights are wanted.
    Its noise paths are those of the stages that have begun; at a border the next one has not.

    Args:
        run: The run.
        best: Its best weights; 2 for the second best, ...
        raw: Weights without averaging.
        device: Where to; None for the CPU.
        lent: Leave the matrices of stacks that do not train any more where they lie, read as they
            are needed: in their files, or in a copy in memory.
        checkpoint: The step after which it was written; None for the last one.

    Raises:
        CheckpointError: If there is none of a training step yet, or it is damaged or of another
            run.
        RunError: If the run's own files are missing or damaged.
        ExperimentError: If a frozen stack's format needs a package that is not here.
    """
    exp, device = run.experiment, device or torch.device("cpu")
    home = run.path if checkpoint is None else home_at(run, checkpoint)
    folder, better_home = home / RACK, best_home(run, best)
    manifest, stages = own_manifest(run, RACK, home), stages_of(run)
    at = Counters(**manifest["counters"])
    if not at.total_steps:  # only stacks that wait for their stage were put away
        raise NoCheckpoint(f"run {run.id}: has no checkpoint yet; it is {run.state}")
    check_held(exp, folder, manifest)
    rack = empty_rack(exp, device)
    averaged = set() if raw else {*averages_in(manifest)}
    better = own_manifest(run, BEST, better_home) if best else {"parts": {}}
    whole = {"embedding", "head"} | averaged | better["parts"].keys()
    shelf = Shelf(rack, folder, device, lent) if lent is not None else None
    for name, entry in manifest["parts"].items():
        if "." in name:
            continue
        if name not in rack.parts():
            rack.add(name, empty=True)
        if shelf is not None and name not in whole:
            shelf.lend(name, loaded=False)
        else:
            put(rack, name, read_part(folder, manifest, name), folder, entry.get("format"))
    for part in sorted(averaged & rack.parts().keys()):
        tensors = read_part(folder, manifest, f"{part}.{AVERAGE}")
        put(rack, part, {**rack.parts()[part].state_dict(), **tensors}, folder)
    begun = stages[: at.stage + (at.step > 0)]
    check_stage(at, stages, manifest)
    if best:
        fill(rack, better_home / BEST, better)
    put_adapters(rack, folder, manifest, begun, raw=raw)
    put_adapters(rack, better_home / BEST, better, begun)
    rack.paths, rack.objective = paths_so_far(begun), in_blocks(exp, begun[-1]).objective
    return rack.to(device).eval()
