"""What a run's checkpoints hold of it: the rack, and what resuming needs.

In `rack/` each part (`s0`) has its weights, and while it trains its moments (`s0.optimizer`) and
its moving average (`s0.average`); the counters stand in the manifest. `best/` has the weights that
the last stage trains, where their held-out loss was lowest.

How their files are written and committed is in `checkpoint.py`.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stackwise.memory.flops import vocab_size
from stackwise.model.rack import Rack
from stackwise.runs import Run
from stackwise.stage import Stage, paths_so_far
from stackwise.training.checkpoint import CheckpointError, read_manifest, read_part, save
from stackwise.training.optim import optimizer_state
from stackwise.training.step import Trainee
from stackwise.training.work import Counters, Work

RACK, BEST = "rack", "best"
MOMENTS, AVERAGE = "optimizer", "average"


def save_work(work: Work, trainee: Trainee, *, moments: bool = True, average: bool = True) -> None:
    """Write a checkpoint of the rack and of what resuming needs.

    Args:
        work: The run.
        trainee: What trains now; the other parts' files are still right.
        moments: Keep the optimizer's state.
        average: Keep the moving average.
    """
    trained = {part for part, _ in trainee.named}
    parts = {name: dict(module.state_dict()) for name, module in work.rack.parts().items()}
    unchanged = {name for name in parts if name not in trained and name in work.saved_parts}
    work.saved_parts = set(parts)
    if moments:
        for part, tensors in optimizer_state(trainee.optimizer, trainee.named).items():
            parts[f"{part}.{MOMENTS}"] = tensors
    if average and trainee.average is not None:
        work.at.updates = trainee.average.updates
        for part, tensors in trainee.average.state().items():
            parts[f"{part}.{AVERAGE}"] = tensors
    work.writer.flush()  # no step that a checkpoint stands on may be missing from the metrics
    save(
        work.run.path / RACK,
        parts,
        unchanged=unchanged,
        written_in=trainee.number,
        counters=asdict(work.at),
    )
    work.saved_at = time.monotonic()


def restore(work: Work) -> None:
    """Put a run back to where its last checkpoint was written."""
    folder = work.run.path / RACK
    manifest = read_manifest(folder)
    work.at = Counters(**manifest["counters"])
    fill(work.rack, folder, manifest)
    work.saved_parts = set(work.rack.parts())
    for name in manifest["parts"]:
        part, _, kind = name.partition(".")
        if kind:
            tensors = read_part(folder, manifest, name)
            work.restored.setdefault(kind, {})[part] = {
                key: value.to(work.device) for key, value in tensors.items()
            }
    work.writer.event("resumed", stage=work.at.stage, step=work.at.total_steps)


def fill(rack: Rack, folder: Path, manifest: dict[str, Any]) -> None:
    """Load the parts of a checkpoint into a rack, adding the stacks that it lacks.

    Raises:
        CheckpointError: If a part is damaged, or of a rack that is built otherwise.
    """
    for name in (name for name in manifest["parts"] if "." not in name):
        tensors = read_part(folder, manifest, name)
        if name not in rack.parts():
            rack.add(name)
        if name == "head" and "weight" in tensors:
            rack.untie()
        try:
            rack.parts()[name].load_state_dict(tensors)
        except RuntimeError:
            raise CheckpointError(
                f"{folder}: part {name!r} has other tensors than this version's rack; train it "
                "again, or open it with the version in provenance.json"
            ) from None


def fill_averages(rack: Rack, folder: Path, manifest: dict[str, Any]) -> None:
    """Put the moving averages of a checkpoint in the place of the weights that they follow."""
    for name in manifest["parts"]:
        part, _, kind = name.partition(".")
        if kind == AVERAGE:
            module = rack.parts()[part]
            module.load_state_dict({**module.state_dict(), **read_part(folder, manifest, name)})


def read_rack(run: Run, *, best: bool = False, raw: bool = False) -> Rack:
    """The model of a run's last checkpoint, or the best one of its last stage.

    What trains is read at its moving average where there is one, unless `raw` weights are wanted.
    Its noise paths are those of the stages that have begun; at a border the next one has not.

    Raises:
        CheckpointError: If there is none yet, or it is damaged.
    """
    exp = run.experiment
    rack = Rack(exp.rack, exp.attention, vocab_size(exp), stacks=(), seed=exp.seed)
    manifest = read_manifest(run.path / RACK)
    fill(rack, run.path / RACK, manifest)
    if not raw:
        fill_averages(rack, run.path / RACK, manifest)
    if best:
        better = read_manifest(run.path / BEST)
        fill(rack, run.path / BEST, better)
    stages = tuple(Stage.model_validate(value) for value in run.stages())
    at = Counters(**manifest["counters"])
    rack.paths = paths_so_far(stages[: at.stage + (at.step > 0)])
    return rack.eval()
