"""A run's checkpoint as modules again: to go on from it, or to look at the model that it holds.

What checkpoints hold, and how they are written, is in `saved.py`; their files are compared with
their hashes in `manifest.py`, and a part's tensors become a module in `parts.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from stackwise.adapters import SUFFIX, carried_after
from stackwise.by_stage import in_blocks
from stackwise.model.adapters import put_on, take_off
from stackwise.model.rack import Rack
from stackwise.runs import Run
from stackwise.runs.damage import RESTORE
from stackwise.runs.records import MANIFEST
from stackwise.stage import Stage, paths_so_far
from stackwise.training.bests import best_home
from stackwise.training.earlier import home_at
from stackwise.training.manifest import (
    CheckpointError,
    NoCheckpoint,
    read_manifest,
    read_part,
    verify_part,
)
from stackwise.training.ownership import BEST, RACK, own_manifest
from stackwise.training.part_names import AVERAGE, MASTER, holds_weights, split
from stackwise.training.parts import built_alike, check_held, empty_rack, fill, put
from stackwise.training.start import stages_of
from stackwise.training.trained import State
from stackwise.training.work import Counters, Work
from stackwise.trunk.shelf import Shelf


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
