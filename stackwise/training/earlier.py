"""Checkpoints before the present one, and going back to one of them when that is asked for.

    earlier/00000064/rack/  state/     the checkpoint after step 64 (`placement.keep_last`)

They are second names of files (`kept_stages.py`), so that a part which has not changed since takes
no room. An earlier one is whole before the present one is replaced, and goes after that: at no
moment there are fewer than `keep_last`. The kept end of a stage is a checkpoint too. No run goes
back by itself: `go_back` is `stackwise resume RUN --from STEP`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.atomic import PART, flush, write_text
from stackwise.bounded import check_no_links
from stackwise.disk_errors import disk_named
from stackwise.jsontext import dumps
from stackwise.runs import Run, RunError, lock, status
from stackwise.runs.event_log import append_event
from stackwise.runs.pruned import pruned_of, pruned_text
from stackwise.runs.records import MANIFEST
from stackwise.training.checkpoint import INTACT
from stackwise.training.kept_stages import FOLDER as STAGES
from stackwise.training.kept_stages import drop_drafts, keep, same_file
from stackwise.training.manifest import CheckpointError, read_manifest, verify_all
from stackwise.training.ownership import RACK, own_manifest
from stackwise.training.part_names import home_of

if TYPE_CHECKING:
    from stackwise.training.work import Work

FOLDER, DIGITS = "earlier", 8


@dataclass(frozen=True)
class Kept:
    """A checkpoint of a run that can be read, and gone back to.

    Attributes:
        step: The steps that the run had taken; what it is called.
        stage: The stage that was in hand.
        kind: `last`, `earlier`, or `stage`: the kept end of one.
        home: The folder in which its `rack` and `state` lie.
    """

    step: int
    stage: int
    kind: str
    home: Path


def keep_present(work: Work) -> None:
    """Keep the present checkpoint as an earlier one, if the one to be written is of a later step.

    Raises:
        OSError: If the folder cannot be written.
    """
    rack = work.run.path / RACK
    if work.placement.keep_last == 1 or not (rack / MANIFEST).exists():
        return
    step = step_in(read_manifest(rack))
    if 0 < step < work.at.total_steps:
        with disk_named(f"{RACK}: the checkpoint cannot be kept", INTACT):
            keep_in(work.run.path / FOLDER, step, rack)


def keep_in(folder: Path, step: int, checkpoint: Path) -> None:
    """Give a checkpoint second names in the folder of a step."""
    try:
        keep(checkpoint, folder / name_of(step))
        flush(folder.parent)
    except BaseException:
        drop_drafts(folder)
        raise


def forget_earlier(work: Work, *, later: bool = True) -> None:
    """Remove the earlier checkpoints that are too many, or of steps that are taken again.

    Args:
        work: The run.
        later: Whether those of later steps go, too: a run that went back has what it left until it
            has written its next.
    """
    folder, most = work.run.path / FOLDER, work.placement.keep_last - 1
    steps, now = steps_in(folder), work.at.total_steps
    before = [step for step in steps if step < now]
    after = [] if later else [step for step in steps if step > now]
    forget(folder, {*before[max(0, len(before) - most) :], *after})


def forget(folder: Path, kept: set[int]) -> None:
    """Remove what a folder has of other steps than these, each whole or not at all."""
    for step in set(steps_in(folder)) - kept:
        with suppress(OSError):  # it is in nobody's way; the next one tries again
            os.rename(folder / name_of(step), folder / f".{name_of(step)}{PART}")
    drop_drafts(folder)


def name_of(step: int) -> str:
    """The folder of a step."""
    return f"{step:0{DIGITS}d}"


def steps_in(folder: Path) -> list[int]:
    """The steps that have a folder in one, in order."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def step_in(manifest: dict[str, Any]) -> int:
    """The step of a checkpoint, from its manifest.

    Raises:
        CheckpointError: If it says none.
    """
    step = (manifest.get("counters") or {}).get("total_steps")
    if isinstance(step, bool) or not isinstance(step, int):
        raise CheckpointError(f"{RACK}/{MANIFEST}: says no step; it is none of a run's")
    return step


def checkpoints_of(run: Run) -> list[Kept]:
    """The checkpoints of a run whose manifest is whole, the newest first."""
    found = []
    for kind, home in homes_of(run.path):
        with suppress(CheckpointError, LookupError, TypeError, AttributeError, OSError):
            manifest = read_manifest(home / RACK)
            if step := step_in(manifest):
                found.append(Kept(step, int(manifest["counters"]["stage"]), kind, home))
    order = ("last", "earlier", "stage")
    return sorted(found, key=lambda kept: (-kept.step, order.index(kept.kind)))


def homes_of(run: Path) -> Iterator[tuple[str, Path]]:
    """The folders in which checkpoints of a run may lie, with their kind."""
    yield "last", run
    for name, kind in ((FOLDER, "earlier"), (STAGES, "stage")):
        for number in sorted((run / name).glob("[0-9]*")):
            yield kind, number


def home_at(run: Run, step: int) -> Path:
    """The folder in which the checkpoint of a step lies.

    Raises:
        RunError: If there is none; the message lists those that there are.
    """
    known = checkpoints_of(run)
    for kept in known:
        if kept.step == step:
            return kept.home
    steps = ", ".join(map(str, dict.fromkeys(kept.step for kept in known))) or "none"
    raise RunError(f"run {run.id}: has no checkpoint of step {step}; there are: {steps}")


def go_back(run: Run, step: int) -> None:
    """Make an earlier checkpoint the present one; what is there in its place may be damaged.

    A kill leaves the one or the other, of a run that is not finished. The one that is left is kept,
    if it is whole, until the run has written its next.

    Args:
        run: The run; nobody trains it.
        step: Of the checkpoint.

    Raises:
        CheckpointError: If every one of that step is damaged or another run's.
        RunError: If there is none of that step, or the run was pruned.
        RunBusy: If the run is being trained.
        OSError: If it cannot be written, or a link in its folder leads out of it.
    """
    check_no_links(run.path)
    check_unpruned(run)
    home_at(run, step)
    with lock.take(run.path):
        home = whole_at(run, step)
        rack, left = run.path / RACK, None
        finished = status.read(run.path).get("state") == "finished"
        if finished:  # first: nothing else may be taken for a finished run's weights
            status.begin(run.path, "stopped")
        if home != run.path:
            with suppress(CheckpointError):
                left = step_in(read_manifest(rack))
                if left > step:
                    keep_in(run.path / FOLDER, left, rack)
            take_over(home / RACK, rack)
        append_event(run.path, "went_back", to_step=step, from_step=left)
        if finished:
            (run.path / "metrics.parquet").unlink(missing_ok=True)


def check_unpruned(run: Run) -> None:
    """Raise if what a run would go on with was removed.

    Raises:
        RunError: If so.
    """
    if pruned_of(run.path):
        raise RunError(
            f"run {run.id}: {pruned_text(run.path)}, so it cannot go on; train it again "
            "(rerun=True, --rerun)"
        )


def whole_at(run: Run, step: int) -> Path:
    """The folder of a step's checkpoint of which every file is what was written.

    Raises:
        CheckpointError: If there is none.
    """
    trouble: CheckpointError | None = None
    for kept in checkpoints_of(run):
        if kept.step != step:
            continue
        try:
            manifest = own_manifest(run, RACK, kept.home)
            verify_all(kept.home / RACK, manifest)
            return kept.home
        except CheckpointError as error:
            trouble = error
    assert trouble is not None
    raise trouble


def take_over(source: Path, rack: Path) -> None:
    """Make another checkpoint the one in `rack`: its files first, then its manifest."""
    manifest = read_manifest(source)
    rack.mkdir(exist_ok=True)
    for name, entry in manifest["parts"].items():
        old, new = home_of(source, name) / entry["file"], home_of(rack, name) / entry["file"]
        new.parent.mkdir(exist_ok=True)
        if new.exists() and new.samefile(old):
            continue
        part = new.with_name(f".{name}{PART}")
        part.unlink(missing_ok=True)
        same_file(old, part)
        os.replace(part, new)
    for home in {rack.parent, rack, *(home_of(rack, name) for name in manifest["parts"])}:
        flush(home)
    write_text(rack / MANIFEST, dumps(manifest, indent=1))  # the next save removes what is left
