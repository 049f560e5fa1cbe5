"""The weights of the last stage at the looks of lowest held-out loss (`placement.keep_best`).

    best/                     those of the lowest
    bests/00000096/best/      with more than one of them: those of step 96, and of each other

Which ones stay is told by the looks at steps before the one in hand alone; so a run that takes its
last steps again after a kill keeps the same ones.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from stackwise.disk_errors import disk_named
from stackwise.runs import Run
from stackwise.runs.records import MANIFEST
from stackwise.training.checkpoint import save
from stackwise.training.earlier import forget, keep_in, name_of, steps_in
from stackwise.training.kept_stages import drop_drafts
from stackwise.training.manifest import CheckpointError, read_manifest
from stackwise.training.ownership import BEST
from stackwise.training.trained import tensors_of

if TYPE_CHECKING:
    from stackwise.training.step import Trainee
    from stackwise.training.work import Work

FOLDER = "bests"


def keep_if_best(work: Work, trainee: Trainee, loss: float) -> None:
    """Keep the weights of a look in the last stage, if its loss is among the lowest so far.

    Raises:
        OSError: If they cannot be written.
    """
    most, step = work.placement.keep_best, work.at.total_steps
    if not most:
        return
    folder = work.run.path / FOLDER
    lowest = work.at.best is None or loss < work.at.best
    if most > 1 and lowest and work.at.best is not None:
        keep_former(work.run.path, step)
    if lowest:
        work.at.best = loss
        write(work, trainee, loss, work.run.path / BEST)
    losses = {each: loss_of(folder, each) for each in steps_in(folder) if each < step}
    if most > 1 and sum(other <= loss for other in losses.values()) < most:
        if lowest:
            keep_in(folder, step, work.run.path / BEST)
        else:
            write_in(work, trainee, loss, folder)
        losses[step] = loss
    kept = sorted(losses, key=lambda each: (losses[each], each))[:most] if most > 1 else []
    forget(folder, set(kept))


def keep_former(run: Path, before: int) -> None:
    """Give what was the best so far its place beside the others, if it has none there."""
    if (run / BEST / MANIFEST).exists():
        step = read_manifest(run / BEST).get("step", before)
        if step < before and step not in steps_in(run / FOLDER):
            keep_in(run / FOLDER, step, run / BEST)


def write(work: Work, trainee: Trainee, loss: float, folder: Path) -> None:
    """Write the weights that train."""
    trained = {part for part, _ in trainee.named}
    save(
        folder,
        tensors_of(work.rack.parts(), lambda part: part in trained),
        written_in=trainee.number,
        run=work.identity,
        step=work.at.total_steps,
        loss=loss,
    )


def write_in(work: Work, trainee: Trainee, loss: float, folder: Path) -> None:
    """Write the weights that train into the folder of their step."""
    draft = folder / f".{name_of(work.at.total_steps)}.written.part"
    drop_drafts(folder)
    try:
        with disk_named(f"{BEST}: the weights cannot be kept", "the last checkpoint is intact"):
            draft.mkdir(parents=True)
            write(work, trainee, loss, draft / BEST)
            keep_in(folder, work.at.total_steps, draft / BEST)
    finally:
        drop_drafts(folder)


def loss_of(folder: Path, step: int) -> float:
    """The held-out loss of the weights of a step; infinite where that cannot be read."""
    try:
        return float(read_manifest(folder / name_of(step) / BEST)["loss"])
    except (CheckpointError, LookupError, TypeError, ValueError):
        return math.inf


def ranked(run: Path) -> list[tuple[float, int]]:
    """Loss and step of the kept weights, the lowest loss first, where more than one are kept."""
    return sorted((loss_of(run / FOLDER, step), step) for step in steps_in(run / FOLDER))


def best_home(run: Run, best: bool | int) -> Path:
    """The folder in which the `best` of a place lies: 1, or True, the lowest loss.

    Raises:
        ValueError: If it is no such number.
        CheckpointError: If so many are not kept.
    """
    if best < 0:
        raise ValueError(f"best: {best!r} is no place; 1 is the lowest held-out loss")
    if best <= 1:
        if best and not (run.path / BEST / MANIFEST).exists():
            raise CheckpointError(
                f"run {run.id}: keeps no best weights; they come with the looks of its last stage, "
                "and placement.keep_best=0 keeps none"
            )
        return run.path
    known = ranked(run.path)
    if len(known) < best:
        raise CheckpointError(
            f"run {run.id}: keeps {len(known) or 1} best, and number {best} is asked for; "
            "placement.keep_best says how many are kept"
        )
    return run.path / FOLDER / name_of(known[best - 1][1])
