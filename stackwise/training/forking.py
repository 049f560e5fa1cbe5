"""A run that begins where a stage of another one ended, and goes on under other settings.

The new run's stages are those that are done, as they were executed, and then the ones that its own
experiment makes from there on. Its folder is whole: the numbers of the stages that it did not train
itself are copied into it, as an attempt before its first.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stackwise.atomic import flush, flush_all, write_text
from stackwise.bounded import check_no_links
from stackwise.budget import placed, with_spans
from stackwise.choice import Unknown
from stackwise.completion import complete, packing
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.data.dataset import Dataset
from stackwise.determinism import promised_here
from stackwise.drafts import FORK, drafted
from stackwise.errors import ExperimentError, Problem
from stackwise.jsontext import dumps
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk_rows import with_disk
from stackwise.probing import as_probed
from stackwise.runs import Run, RunError
from stackwise.runs.asked import flat
from stackwise.runs.carried import own_files
from stackwise.runs.damage import blamed_on
from stackwise.runs.history import copy_history
from stackwise.runs.listing import make_run
from stackwise.runs.pace import PACED, pace_text
from stackwise.runs.pruned import pruned_of, pruned_text
from stackwise.runs.records import MANIFEST, is_run
from stackwise.seals import sealed
from stackwise.stage import Stage, keeps_state, parts_trained, trained_next
from stackwise.training.kept_stages import copy_checkpoint, folder_of, kept_stages
from stackwise.training.manifest import read_manifest, verify_all
from stackwise.training.ownership import RACK, identity_of, own_manifest
from stackwise.training.part_names import MOMENTS
from stackwise.training.placing import check_trunk
from stackwise.training.same_bits import threads_for
from stackwise.training.start import dataset_of, meant_device, run_hash, stages_of, threads_of
from stackwise.training.timing import (
    check_time_left,
    in_tokens_here,
    pace_here,
    unplaced,
    without_lengths,
)

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
        OSError: If a link in its folder leads out of it.
    """
    check_no_links(run.path)
    with blamed_on(run, "provenance.json"):
        check_kept(run, after_stage)
    old, exp = run.experiment, run.experiment.replace(**changes)
    kept = folder_of(run.path, after_stage) / RACK
    manifest = own_manifest(run, RACK, kept.parent)
    verify_all(kept, manifest)
    check_changes(old, exp, manifest)
    place = placement or Placement.load(run.path / "placement.yaml")
    spent = exp if exp.budget.seconds is None else in_time(run, exp, place, manifest)
    made = spliced(run, exp, spent, after_stage)
    notes = beginnings(exp, stages_of(run), made, after_stage)
    facts = run.provenance()
    with blamed_on(run, "provenance.json"):
        data, before = facts["data"], [*facts.get("notes", [])]
        promise = promise_after(run, exp, place)
    weights, code = manifest["sha256"], own_files(run)
    hashes = [weights, *(each.sha256 for each in code)]
    timed = exp.budget.seconds is not None
    known = [*made[: after_stage + 1], *without_lengths(made[after_stage + 1 :])] if timed else made
    run_id = f"{exp.title}-{exp.curriculum.choice}-{run_hash(exp, tuple(known), *hashes)}"
    threads = threads_for(run, place, meant_device(place))
    check_trunk(spent, place, made)
    home = run.path.resolve().parent
    target = home / run_id
    if is_run(target):
        return Run(target)
    with drafted(home, FORK) as drafts:
        with threads_of(place.replace(threads=threads)):
            draft = make_run(
                drafts,
                run_id,
                experiment=exp.to_yaml(),
                placement=place.to_yaml(),
                stages=[stage.model_dump(mode="json") for stage in made],
                plan=plan_after(run, exp, place, made, after_stage),
                facts={
                    "seed": exp.seed,
                    "experiment": exp.hash,
                    "data": data,
                    "notes": [*before, *notes],
                    **({"start": facts["start"]} if "start" in facts else {}),
                    "forked": {"run": run.id, "after_stage": after_stage, "weights": weights}
                    | {"changes": differences(old, exp)},
                    "determinism": promise,
                    **({PACED: True} if timed else {}),
                },
                code=code,
                pace=pace_text(pace_here(exp, spent, place, opened(run, place), made))
                if timed
                else None,
                beside=partial(copy_files, run.path),
            )
        fill(draft, kept)
        with blamed_on(run, "events.jsonl or metrics/"):
            steps = manifest["counters"]["total_steps"]
            copy_history(run, draft.path, stage=after_stage, steps=steps)
        flush_all(draft.path)
        publish(draft.path, target)
    return Run(target)


def plan_after(
    run: Run, exp: Experiment, place: Placement, made: Sequence[Stage], after_stage: int
) -> list[dict[str, Any]]:
    """What is predicted of the stages: those that are done as they were, the others anew."""
    rows = with_disk(plan_rows(exp, place, made), as_probed(exp, made), place, made)
    return [*run.plan()[: after_stage + 1], *rows[after_stage + 1 :]]


def promise_after(run: Run, exp: Experiment, place: Placement) -> dict[str, Any]:
    """Whether a branch has the same bits again: only if what it begins with has."""
    before, now = run.determinism(), promised_here(exp, place, meant_device(place).type)
    if before["promised"]:
        return now
    why = [f"of {run.id}, where it begins: {reason}" for reason in before["why_not"]]
    return {**now, "promised": False, "why_not": [*why, *now["why_not"]]}


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
    came = run.provenance().get("forked")
    if isinstance(came, Mapping) and number < came.get("after_stage", 0):
        why = f"this run began after stage {came['after_stage']} of {came['run']}; fork that one"
    elif "stages" in pruned_of(run.path):
        why = f"this run {pruned_text(run.path)}"
    elif number < run.stages_done():
        why = "its end was not kept, as with placement.keep_stages=false"
    else:
        why = "it is not finished"
    raise ExperimentError(f"after_stage: {number}, but {why}; kept are: {there}")


def check_changes(old: Experiment, new: Experiment, manifest: Mapping[str, Any]) -> None:
    """Raise if an experiment changes what the weights at the end of a stage are made for.

    Raises:
        ExperimentError: With every such key.
    """
    problems = [
        Problem(
            key,
            f"{now!r} is not {was!r}; a fork goes on with what is there, so start a new run for "
            "that",
        )
        for key, (was, now) in differences(old, new).items()
        if key.startswith(SHAPING)
    ]
    moments = any(name.endswith(f".{MOMENTS}") for name in manifest["parts"])
    if moments and old.optim.name != new.optim.name:
        text = f"{new.optim.name!r} cannot go on with the moments of {old.optim.name}"
        problems.append(Problem("optim.name", f"{text}; leave it, or fork after another stage"))
    if problems:
        raise ExperimentError(problems)


def differences(old: Experiment, new: Experiment) -> dict[str, list[Any]]:
    """The keys in which two experiments differ, each with its old and its new value."""
    one, other = flat(old.model_dump(mode="json")), flat(new.model_dump(mode="json"))
    pairs = {key: [one.get(key), other.get(key)] for key in dict.fromkeys([*one, *other])}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def in_time(run: Run, exp: Experiment, place: Placement, manifest: Mapping[str, Any]) -> Experiment:
    """An experiment whose budget is a time, in tokens; what a run has worked so far counts.

    Raises:
        ExperimentError: If the time is over by then, or too little for the whole.
    """
    at = manifest["counters"]
    check_time_left(exp, max(at.get("worked", 0.0), at["seconds"] + at["probe_seconds"]))
    return in_tokens_here(exp, place, opened(run, place))


def opened(run: Run, place: Placement) -> Dataset:
    """The text of a run, which its fork goes on with."""
    return dataset_of(run.experiment, run.path / place.data_dir)


def spliced(run: Run, exp: Experiment, spent: Experiment, after_stage: int) -> tuple[Stage, ...]:
    """The stages that are done, and those that an experiment makes after them.

    Args:
        run: The run.
        exp: The experiment.
        spent: The same, in tokens where its budget is a time.
        after_stage: The last stage that is done.

    Raises:
        ExperimentError: If there are none, or they do not follow on what is done.
    """
    done = stages_of(run)
    whole = done if goes_as_before(run.experiment, exp) else stages(spent)
    if len(whole) <= after_stage + 1:
        raise ExperimentError(
            f"after_stage: {after_stage} is the last of {len(whole)} stages that "
            f"curriculum={exp.curriculum.choice} makes; nothing comes after it"
        )
    begun = [s.model_copy(update={"adapters": s.adapters or ()}) for s in done[: after_stage + 1]]
    joined = [*begun, *whole[after_stage + 1 :]]
    bare = [unplaced(stage, legs=None) for stage in joined]
    laid = with_spans(placed(complete(exp, bare)))
    return (*(as_carried_out(s, d) for s, d in zip(laid, begun, strict=False)), *laid[len(begun) :])


def as_carried_out(stage: Stage, done: Stage) -> Stage:
    """A stage with the schedule that it had, where the clock changed that on the way."""
    if done.legs is None:
        return stage
    return stage.model_copy(update={"legs": done.legs, "lr_span": done.lr_span})


def goes_as_before(old: Experiment, new: Experiment) -> bool:
    """Whether the old stages serve: the curriculum is not known here, and nothing that it reads."""
    keys = {key.partition(".")[0] for key in differences(old, new)}
    return isinstance(new.curriculum, Unknown) and keys <= {"title", "optim", "eval", "seed"}


def beginnings(
    exp: Experiment, old: Sequence[Stage], new: Sequence[Stage], number: int
) -> list[str]:
    """In what a fork begins otherwise than a run of all its stages would stand there.

    The end of a stage is kept as the old run needed it for its own next stages.

    Returns:
        A sentence for each part.

    Raises:
        ExperimentError: If a stack was packed for the old run's stages, and trains in the fork, or
            the other way round.
    """
    notes, problems, form = [], [], packing(exp.precision)
    held = {entry.stack for stage in new[: number + 1] for entry in stage.new or ()}
    active = parts_trained(new[number])
    trained = {part for stage in new[: number + 1] for part in parts_trained(stage)}
    for part in sorted({*held, *active, "embedding", "head"}):
        was = number + 1 < len(old) and part in parts_trained(old[number + 1])
        now = part in parts_trained(new[number + 1])
        later, again = (trained_next(made, number, part) is not None for made in (old, new))
        if form is not None and part in held:
            if part in active and was and not now:
                problems.append(f"{part} trains on in the run, and would be frozen to {form}")
            elif again and not was and exp.precision.master == "none":
                problems.append(f"{part} is frozen to {form} there, without a master to train from")
        if part in active and was != now and exp.optim.ema is not None:
            what = "its weights" if was else "the moving average of its weights"
            notes.append(f"{part} begins at {what}, since it was kept to be {_next(was)}")
        if keeps_state(new, number, part) and not keeps_state(old, number, part):
            notes.append(f"{part} begins with new moments, since the run kept none of it")
        if again and not later and part in trained and lower_halves(exp):
            notes.append(f"{part} begins at its bfloat16 weights, since no lower halves were kept")
    if problems:
        raise ExperimentError(
            "\n".join(f"after_stage: {number}, but {p}; fork after another stage" for p in problems)
        )
    return notes


def _next(trains: bool) -> str:
    return "trained on" if trains else "frozen"


def lower_halves(exp: Experiment) -> bool:
    """Whether bfloat16 weights have exact values beside them."""
    return exp.precision.weights == "bfloat16" and exp.precision.rounding == "master"


def fill(draft: Run, kept: Path) -> None:
    """Give a new run the checkpoint that it begins with."""
    copy_checkpoint(kept, draft.path)
    manifest = read_manifest(kept)
    counters = {**manifest["counters"], "best": None, "decisions": 0}
    own = sealed({**manifest, "run": identity_of(draft), "counters": counters, "events": 0})
    write_text(draft.path / RACK / MANIFEST, dumps(own, indent=1))


def copy_files(run: Path, folder: Path) -> None:
    """Copy what a fork has as the run has it."""
    for name in COPIED:
        if (run / name).is_dir():
            shutil.copytree(run / name, folder / name)
        elif (run / name).exists():
            shutil.copyfile(run / name, folder / name)


def publish(draft: Path, target: Path) -> None:
    """Put a whole run where it belongs.

    Raises:
        RunError: If another process put one there meanwhile that is none.
    """
    try:
        os.rename(draft, target)
        flush(target.parent)
    except OSError as error:
        if not is_run(target):
            raise RunError(f"{target}: cannot be made: {error.strerror}") from error
