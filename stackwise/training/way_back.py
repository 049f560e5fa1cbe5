"""What is said of a damaged checkpoint: what before it is whole, and how a run goes on from there.

Nothing goes back by itself. Going back is in `earlier.py`, forking in `forking.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stackwise.report import called, program
from stackwise.runs import Run, RunError
from stackwise.training.earlier import checkpoints_of, whole_at
from stackwise.training.kept_stages import folder_of, kept_stages
from stackwise.training.manifest import CheckpointError, read_manifest, verify_all
from stackwise.training.ownership import RACK
from stackwise.trunk.shards import DamagedShard


@contextmanager
def way_back(run: Run) -> Iterator[None]:
    """Name what is whole of a run whose checkpoint is damaged.

    Raises:
        CheckpointError: As inside.
    """
    try:
        yield
    except CheckpointError as error:
        of_a_cache = isinstance(error.__cause__, DamagedShard)
        offered = None if of_a_cache else offer(run)
        if offered is None:
            raise
        raise CheckpointError(f"{error}. {offered}") from error


def offer(run: Run) -> str | None:
    """The newest whole checkpoint before a damaged one, or the last whole end of a stage.

    The latter where going back does not help: what is damaged is not the present checkpoint, or the
    earlier ones are not this run's. None where nothing is whole.
    """
    step = newest_whole(run)
    if step is not None:
        return (
            f"Or go back to the checkpoint of step {step}, which is whole: "
            f"{program()} resume {called(run)} --from {step}, or sw.resume(run, checkpoint={step})"
        )
    number = last_whole_stage(run.path)
    if number is not None:
        return (
            f"Or go on from the end of stage {number}, which is kept: "
            f"{program()} fork {called(run)} {number}, or run.fork(after_stage={number})"
        )
    return None


def newest_whole(run: Run) -> int | None:
    """The step of the newest checkpoint of which every file is what was written.

    None if there is none, or that is the present one.
    """
    for step in dict.fromkeys(kept.step for kept in checkpoints_of(run)):
        with suppress(CheckpointError, RunError, OSError):
            return None if whole_at(run, step) == run.path else step
    return None


def last_whole_stage(run: Path) -> int | None:
    """The last stage of which every file that was kept is what was written; None without one."""
    for number in reversed(kept_stages(run)):
        rack = folder_of(run, number) / RACK
        with suppress(CheckpointError, OSError):
            manifest = read_manifest(rack)
            verify_all(rack, manifest)
            return number
    return None
