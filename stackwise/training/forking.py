"""A run that begins where a stage of another one ended, and goes on under other settings.

The new run's stages are those that are done, as they were executed, and then the ones that its own
experiment makes from there on. Its folder is whole: the numbers of the stages that it did not train
itself are copied into it, as an attempt before its first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.budget import placed, with_spans
from stackwise.choice import Unknown
from stackwise.completion import complete
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError, Problem
from stackwise.jsontext import dumps
from stackwise.memory.bytes import plan_rows
from stackwise.runs import Run, RunError
from stackwise.runs.folder import is_run
from stackwise.runs.history import copy_history
from stackwise.runs.listing import make_run
from stackwise.stage import FULL_BAND, Stage
from stackwise.training.checkpoint import MANIFEST, read_manifest, sealed
from stackwise.training.kept_stages import copy_checkpoint, folder_of, kept_stages
from stackwise.training.ownership import identity_of
from stackwise.training.placing import check_trunk
from stackwise.training.saved import MOMENTS, RACK
from stackwise.training.start import run_hash, stages_of

SHAPING = ("rack", "attention", "start", "data", "precision", "optim.batch")
COPIED = ("tokenizer.json", "start")


def fork(
    run: Run, after_stage: int, changes: Mapping[str, Any], placement: Placement | None = None
) -> Run:
    """Make the folder of a run that goes on after a finished stage of another one.

    Args:
        run: The run to branch from; it is not changed.
        after_stage: The number of the stage.
        changes: What the new experiment has otherwise, as for `Experiment.replace`.
        placement: How the new run is carried out, its folders seen from it; None for as the old.

    Returns:
        The new run, or the one that is there if the same was forked before.

    Raises:
        ExperimentError: If the stage's end is not kept, the changes would alter what it holds, or
            the stages after it do not follow on it.
        CheckpointError: If what is kept is damaged.
    """
    check_kept(run, after_stage)
    old, exp = run.experiment, run.experiment.replace(**changes)
    kept = folder_of(run.path, after_stage) / RACK
    check_changes(old, exp, read_manifest(kept))
    made = spliced(run, exp, after_stage)
    facts = run.provenance()
    weights = read_manifest(kept)["sha256"]
    run_id = f"{exp.title}-{exp.curriculum.choice}-{run_hash(exp, made, weights)}"
    place = placement or Placement.load(run.path / "placement.yaml")
    check_trunk(exp, place, made)
    target = run.path.parent / run_id
    if is_run(target):
        return Run(target)
    drafts = run.path.parent / f".fork-{os.getpid()}"
    try:
        draft = make_run(
            drafts,
            run_id,
            experiment=exp.to_yaml(),
            placement=place.to_yaml(),
            stages=[stage.model_dump(mode="json") for stage in made],
            plan=[*run.plan()[: after_stage + 1], *plan_rows(exp, place, made)[after_stage + 1 :]],
            facts={
                "seed": exp.seed,
                "experiment": exp.hash,
                "data": facts["data"],
                "notes": facts.get("notes", []),
                **({"start": facts["start"]} if "start" in facts else {}),
                "forked": {"run": run.id, "after_stage": after_stage, "weights": weights}
                | {"changes": shown(old, exp)},
            },
        )
        fill(draft, run, kept, after_stage)
        publish(draft.path, target)
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
    return Run(target)


def check_kept(run: Run, number: int) -> None:
    """Raise if the end of a stage cannot be had.

    Raises:
        ExperimentError: If so.
    """
    kept, count = kept_stages(run.path), len(run.stages())
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < count:
        raise ExperimentError(f"after_stage: {number!r} is no stage; there are 0 to {count - 1}")
    if number in kept:
        return
    there = ", ".join(map(str, kept)) or "none"
    why = (
        "its end was not kept; the run was carried out with placement.keep_stages=false"
        if number < run.stages_done()
        else "it is not finished"
    )
    raise ExperimentError(f"after_stage: {number}, but {why}; kept are: {there}")


def check_changes(old: Experiment, new: Experiment, manifest: Mapping[str, Any]) -> None:
    """Raise if an experiment changes what the weights at the end of a stage are made for.

    Raises:
        ExperimentError: With every such key.
    """
    problems = [
        Problem(key, f"{text}; a fork goes on with what is there, so start a new run for that")
        for key, text in differences(old, new)
        if key.startswith(SHAPING)
    ]
    moments = any(name.endswith(f".{MOMENTS}") for name in manifest["parts"])
    if moments and old.optim.name != new.optim.name:
        text = f"{new.optim.name!r} cannot go on with the moments of {old.optim.name}"
        problems.append(Problem("optim.name", f"{text}; leave it, or fork after another stage"))
    if problems:
        raise ExperimentError(problems)


def differences(old: Experiment, new: Experiment) -> list[tuple[str, str]]:
    """The keys in which two experiments differ, each with both values in words."""
    one, other = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    keys = dict.fromkeys([*one, *other])
    return [
        (key, f"{other.get(key)!r} is not {one.get(key)!r}")
        for key in keys
        if one.get(key) != other.get(key)
    ]


def flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested keys with dots."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return out


def spliced(run: Run, exp: Experiment, after_stage: int) -> tuple[Stage, ...]:
    """The stages that are done, and those that an experiment makes after them.

    Raises:
        ExperimentError: If there are none, or they do not follow on what is done.
    """
    done = stages_of(run)
    whole = done if goes_as_before(run.experiment, exp) else stages(exp)
    if len(whole) <= after_stage + 1:
        raise ExperimentError(
            f"after_stage: {after_stage} is the last of {len(whole)} stages that "
            f"curriculum={exp.curriculum.choice} makes; nothing comes after it"
        )
    joined = [*done[: after_stage + 1], *whole[after_stage + 1 :]]
    blank = {"progress": FULL_BAND}
    bare = [
        stage.model_copy(
            update=blank if stage.lr == "per_stage" else {**blank, "lr_span": FULL_BAND}
        )
        for stage in joined
    ]
    return tuple(with_spans(placed(complete(exp, bare))))


def goes_as_before(old: Experiment, new: Experiment) -> bool:
    """Whether the old stages serve: the curriculum is not known here, and nothing that it reads."""
    keys = {key.partition(".")[0] for key, _ in differences(old, new)}
    return isinstance(new.curriculum, Unknown) and keys <= {"title", "optim", "eval", "seed"}


def shown(old: Experiment, new: Experiment) -> dict[str, Any]:
    """What a fork changes: key to old and new value."""
    one, other = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    return {key: [one.get(key), other.get(key)] for key, _ in differences(old, new)}


def fill(draft: Run, run: Run, kept: Path, after_stage: int) -> None:
    """Give a new run the checkpoint, the files and the history that it begins with."""
    copy_checkpoint(kept, draft.path)
    manifest = read_manifest(kept)
    counters = {**manifest["counters"], "best": None}
    own = sealed({**manifest, "run": identity_of(draft), "counters": counters})
    write_text(draft.path / RACK / MANIFEST, dumps(own, indent=1))
    for name in COPIED:
        source = run.path / name
        if source.is_dir():
            shutil.copytree(source, draft.path / name)
        elif source.exists():
            shutil.copyfile(source, draft.path / name)
    copy_history(run, draft.path, stage=after_stage, steps=counters["total_steps"])


def publish(draft: Path, target: Path) -> None:
    """Put a whole run where it belongs.

    Raises:
        RunError: If another process put one there meanwhile that is none.
    """
    try:
        os.rename(draft, target)
    except OSError as error:
        if not is_run(target):
            raise RunError(f"{target}: cannot be made: {error.strerror}") from error
