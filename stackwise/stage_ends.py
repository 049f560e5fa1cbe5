"""The rack as each stage of a run left it: which ends of stages there are, and how one is read.

They are written by `training/kept_stages.py`; how far a rack moved between them is in `drift.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from stackwise.by_stage import in_blocks
from stackwise.model.rack import Rack
from stackwise.model.shape import stack_ids
from stackwise.runs.damage import RunError
from stackwise.runs.records import MANIFEST
from stackwise.stage import paths_so_far
from stackwise.training.kept_stages import folder_of, kept_stages
from stackwise.training.manifest import CheckpointError, read_manifest, read_part
from stackwise.training.ownership import RACK, identity_of
from stackwise.training.part_names import AVERAGE
from stackwise.training.parts import check_held, empty_rack, put
from stackwise.training.restoring import put_adapters
from stackwise.training.start import stages_of
from stackwise.trunk.shelf import Shelf

if TYPE_CHECKING:
    from stackwise.runs import Run


def stage_ends(run: Run) -> dict[int, Path]:
    """The checkpoints at the ends of stages that there are, by the stage's number, in order.

    Those that were kept, and of a finished run its own.
    """
    found = {number: folder_of(run.path, number) / RACK for number in kept_stages(run.path)}
    last = len(run.stages()) - 1
    if run.state == "finished" and run.has_weights():
        found.setdefault(last, run.path / RACK)
    return dict(sorted(found.items()))


def two_ends(run: Run) -> dict[int, Path]:
    """The same, if there are enough of them to compare.

    Raises:
        RunError: If there are not.
    """
    found = stage_ends(run)
    if len(found) < 2:
        there = ", ".join(map(str, found)) or "none"
        raise RunError(
            f"run {run.id}: drift is between the ends of two stages, and of those kept there is "
            f"{there}; train it again with placement.keep_stages=true and two stages or more"
        )
    return found


def rack_after(
    run: Run,
    stage: int,
    *,
    device: str = "cpu",
    lent: Literal["disk", "host"] | None = None,
) -> Rack:
    """The rack as a stage left it.

    Args:
        run: The run.
        stage: The stage's number.
        device: Where to.
        lent: As for `Run.rack`: leave matrices of stacks where they lie.

    Raises:
        RunError: If the stage's end is not kept.
        CheckpointError: If what is kept is damaged, or of another run.
    """
    ends = stage_ends(run)
    if stage not in ends:
        there = ", ".join(map(str, ends)) or "none"
        raise RunError(f"run {run.id}: the end of stage {stage} is not kept; there are: {there}")
    exp, folder, stages = run.experiment, ends[stage], stages_of(run)
    manifest = own_end(run, folder)
    check_held(exp, folder, manifest)
    rack = empty_rack(exp, torch.device(device))
    shelf = Shelf(rack, folder, torch.device(device), lent) if lent is not None else None
    for name, entry in manifest["parts"].items():
        if "." in name:
            continue
        averaged = f"{name}.{AVERAGE}" in manifest["parts"]
        if name not in rack.parts():
            rack.add(name, empty=True)
        if shelf is not None and name in stack_ids(exp.rack) and not averaged:
            shelf.lend(name, loaded=False)
        else:
            put(rack, name, tensors_of(folder, manifest, name), folder, entry.get("format"))
    put_adapters(rack, folder, manifest, stages[: stage + 1])
    rack.paths = paths_so_far(stages[: stage + 1])
    rack.objective = in_blocks(exp, stages[stage]).objective
    return rack.to(device).eval()


def own_end(run: Run, folder: Path) -> dict[str, Any]:
    """The manifest of a kept end, if it is one of this run's experiment, data and start."""
    manifest = read_manifest(folder)
    theirs, own = manifest.get("run", {}), identity_of(run)
    for key in ("experiment", "data", "start weights"):
        if theirs.get(key) != own[key]:
            raise CheckpointError(
                f"run {run.id}: {folder.parent.name}/{RACK}/{MANIFEST} is of another {key}; "
                "restore it from a copy of the run"
            )
    return manifest


def tensors_of(folder: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """A part's tensors, at their moving average where there is one."""
    found = read_part(folder, manifest, name)
    if f"{name}.{AVERAGE}" in manifest["parts"]:
        found |= read_part(folder, manifest, f"{name}.{AVERAGE}")
    return found
