"""A run leaves its place: it is deleted, or packed to be shown elsewhere."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from stackwise.atomic import PART, replacing
from stackwise.runs.lock import LOCK, SUPERVISOR

if TYPE_CHECKING:
    from stackwise.runs.folder import Run

WEIGHTS = ("rack", "state", "best", "stages", "start")
LEFT_OUT = ("cache", "control", LOCK, SUPERVISOR)  # of this machine, or made again


def delete_run(run: Run) -> None:
    """Remove a run's folder, and what it has of caches elsewhere.

    Raises:
        RunBusy: If it is live.
        OSError: If it cannot be removed.
    """
    from stackwise.placement import Placement
    from stackwise.runs.lock import RunBusy

    if run.is_live:
        raise RunBusy(f"run {run.id}: is {run.state}; stop it first, then delete it")
    place = run.path / "placement.yaml"
    caches = Placement.load(place).cache_dir if place.exists() else None
    gone = run.path.with_name(f".deleted-{run.path.name}-{os.getpid()}")
    os.rename(run.path, gone)  # from here on it is no run, whatever happens
    if caches is not None:
        shutil.rmtree(gone / caches / run.id, ignore_errors=True)
    shutil.rmtree(gone)


def zip_run(run: Run, path: Path, *, weights: bool = True) -> None:
    """Pack a run into a zip file, under its id; unpacked it is a run again.

    Args:
        run: The run; one that trains is packed as it stands between two checkpoints.
        path: The file; an older one is replaced.
        weights: Whether its weights go along; without them its numbers can be looked at.

    Raises:
        OSError: If it cannot be written.
    """
    out = LEFT_OUT if weights else (*LEFT_OUT, *WEIGHTS)
    with replacing(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(run.path.rglob("*")):
            inside = file.relative_to(run.path)
            if file.is_file() and inside.parts[0] not in out and not file.name.endswith(PART):
                packed.write(file, Path(run.id, *inside.parts))
