"""Where the weights at the start of a stage come from, for a step that is to be watched.

A step needs a run folder to work in, and gets one of its own, which is gone afterwards: nothing is
written into the run that is looked at. Its stages are those of the run, or of the experiment. If
the run has kept the end of the stage before (`training/kept_stages.py`), it begins there. If not,
the stages before are trained, here and now, or for some steps each if that is what is asked.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.asked import an_experiment, usual_placement
from stackwise.atomic import write_text
from stackwise.budget import steps_of
from stackwise.config import Experiment, Placement
from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps
from stackwise.memory.bytes import plan_rows
from stackwise.memory.flops import stage_flops_per_token
from stackwise.memory.room import check_room
from stackwise.runs import Run, make_run
from stackwise.runs.records import MANIFEST
from stackwise.seals import sealed
from stackwise.stage import Stage
from stackwise.training.kept_stages import copy_checkpoint, folder_of, kept_stages
from stackwise.training.manifest import read_manifest
from stackwise.training.ownership import RACK, identity_of
from stackwise.training.start import create_run, seen_from, stages_of

if TYPE_CHECKING:
    from collections.abc import Sequence

PLAIN = {"compile": False, "trunk": "recompute", "cache_dir": None, "cache_gb": None}


@dataclass(frozen=True)
class Beginning:
    """How the start of a stage is come by.

    Attributes:
        stage: The stage.
        kept_by: The run that has kept its start, or that of an earlier stage; None if none has.
        first: The first stage that is to be trained for it; `stage` itself if none is.
        steps: Optimizer steps of those stages, each in full.
        flops: What they take.
    """

    stage: int
    kept_by: str | None
    first: int
    steps: int
    flops: float


def source_run(source: Run | Experiment | str) -> Run | None:
    """The run that is looked at, if it is one."""
    return source if isinstance(source, Run) else None


def experiment_of(source: Run | Experiment | str) -> Experiment:
    """The experiment of what is looked at.

    Raises:
        ExperimentError: If it is no experiment, run or preset's name.
    """
    return source.experiment if isinstance(source, Run) else an_experiment(source)


def placement_of(source: Run | Experiment | str) -> Placement:
    """How it is carried out if nothing else is said, its folders seen from here."""
    if not isinstance(source, Run):
        return usual_placement(source)
    place = Placement.load(source.path / "placement.yaml")
    return place.replace(data_dir=str((source.path / place.data_dir).resolve()))


def plainly(placement: Placement) -> tuple[Placement, list[str]]:
    """A placement under which blocks can be watched one by one, and what that leaves out."""
    notes = []
    if placement.compile:
        notes.append(
            "The blocks are not compiled here, since a compiled stretch cannot be watched from "
            "inside; last bits may differ from the run's."
        )
    if placement.trunk != "recompute":
        notes.append(
            f"The trunk is computed here, not {placement.trunk}: that gives the same numbers."
        )
    if placement.checkpointing:
        notes.append(
            "Blocks keep their input alone and are computed again in backward "
            "(placement.checkpointing); what they keep meanwhile cannot be seen."
        )
    return placement.replace(**PLAIN), notes


def scratch_run(
    source: Run | Experiment | str, exp: Experiment, placement: Placement, folder: Path
) -> Run:
    """A run folder of one's own for the stages of what is looked at.

    Args:
        source: What is looked at.
        exp: Its experiment, perhaps under another seed.
        placement: How steps are carried out, its folders seen from here.
        folder: Where the run's folder is made.

    Raises:
        ExperimentError: If it cannot be carried out here.
        DataError: If the corpus cannot be read.
    """
    placement = placement.replace(runs_dir=str(folder), keep_stages=True)
    if not isinstance(source, Run):
        return create_run(exp, placement)
    made = stages_of(source)
    plan = plan_rows(exp, placement, made)
    check_room(plan, placement)
    known = source.provenance()
    facts: dict[str, Any] = {key: known[key] for key in ("data", "start") if key in known}
    return make_run(
        folder,
        source.id,
        experiment=exp.to_yaml(),
        placement=seen_from(folder / source.id, placement).to_yaml(),
        stages=[stage.model_dump(mode="json") for stage in made],
        plan=plan,
        facts={**facts, "seed": exp.seed, "experiment": exp.hash, "notes": []},
    )


def beginning_of(
    exp: Experiment, stages: Sequence[Stage], number: int, keepers: Sequence[Run]
) -> Beginning:
    """How the start of a stage can be come by.

    Args:
        exp: The experiment.
        stages: Its stages.
        number: The stage.
        keepers: Runs that may have kept the ends of stages; the nearest end counts.

    Raises:
        ExperimentError: If there is no such stage.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(stages):
        raise ExperimentError(f"stage: {number!r} is no stage; there are 0 to {len(stages) - 1}")
    first, keeper = max(_kept(keepers, number), key=lambda found: found[0], default=(0, None))
    tokens = [(stage.tokens or 0) for stage in stages[first:number]]
    costs = (stage_flops_per_token(exp, stage).total for stage in stages[first:number])
    return Beginning(
        stage=number,
        kept_by=None if keeper is None else str(keeper.path),
        first=first,
        steps=sum(steps_of(exp, stage) for stage in stages[first:number]),
        flops=sum(count * cost for count, cost in zip(tokens, costs, strict=True)),
    )


def _kept(keepers: Sequence[Run], number: int) -> Iterator[tuple[int, Run]]:
    """The stages up to this one whose start some run has kept."""
    for run in keepers:
        ends = [end for end in kept_stages(run.path) if end < number]
        if ends:
            yield max(ends) + 1, run


def put_at(run: Run, beginning: Beginning) -> None:
    """Bring a scratch run to the border from which it goes on: a kept end, or nothing at all.

    Raises:
        CheckpointError: If what is kept is damaged.
    """
    for name in (RACK, "state", "best"):
        shutil.rmtree(run.path / name, ignore_errors=True)
    if beginning.kept_by is None:
        return
    kept = folder_of(Path(beginning.kept_by), beginning.first - 1) / RACK
    manifest = read_manifest(kept)
    copy_checkpoint(kept, run.path)
    own = sealed({**manifest, "run": identity_of(run), "events": 0})
    write_text(run.path / RACK / MANIFEST, dumps(own, indent=1))


def said_of(beginning: Beginning, trained: int) -> str:
    """Where the weights at the start of a stage came from, in a sentence."""
    if beginning.stage == 0:
        return ""
    numbers = range(beginning.first, beginning.stage)
    if not numbers:
        return "The stage begins with the weights that the one before it ended with."
    which = f"stage {numbers[0]} was"
    if len(numbers) > 1:
        which = f"stages {numbers[0]} to {numbers[-1]} were"
    if trained == beginning.steps:
        return f"To begin here, {which} trained first: {trained:,} steps, in full."
    return (
        f"To begin here, {which} trained for {trained:,} steps, not {beginning.steps:,}: these "
        "weights are younger than those of a whole run."
    )
