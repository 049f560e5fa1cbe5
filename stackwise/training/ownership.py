"""Which run a checkpoint is of: no other run's is trained on or answered with.

A run is known by what decides its weights and not by its folder, which may be renamed and moved:
its experiment and stages, its data, and the model that it began with. Their hashes stand in each
manifest of the run. What else a manifest holds is in `saved.py` and `watch.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise.atomic import sha256_of
from stackwise.runs import Run, RunError
from stackwise.training.checkpoint import MANIFEST, RESTORE, CheckpointError, read_manifest

HOLDS = {"rack": "counters", "best": "loss"}  # what only the manifest in this folder holds
FILES = ("experiment.yaml", "stages.json")


def identity_of(run: Run) -> dict[str, str | None]:
    """What a run is known by: names to hashes; None for start weights that it does not have.

    Experiment, data and start weights are those that it began with, from provenance.json. Of the
    files that are carried out, the text counts.

    Raises:
        RunError: If provenance.json is missing or damaged.
    """
    facts = run.provenance()
    try:
        began: dict[str, str | None] = {
            "experiment": facts["experiment"],
            "data": facts["data"]["fingerprint"],
            "start weights": facts["start"]["weights"] if "start" in facts else None,
        }
    except (LookupError, TypeError):
        raise RunError(f"run {run.id}: provenance.json is damaged; {RESTORE}") from None
    return began | {name: sha256_of(run.path / name) for name in FILES}


def check_files(run: Run) -> None:
    """Compare what is carried out with what was written as the run was made.

    Once there is a checkpoint, its manifest says the same (`own_manifest`).

    Raises:
        RunError: If a file has changed since.
    """
    for name in FILES:
        run.compare(name)


def own_manifest(run: Run, name: str) -> dict[str, Any]:
    """The manifest of one of a run's checkpoints.

    Args:
        run: The run.
        name: The checkpoint's folder in it: `rack` or `best`.

    Raises:
        CheckpointError: If there is none, or it is damaged or of another run.
        RunError: If the run's own provenance.json is missing or damaged.
    """
    manifest, where = read_manifest(run.path / name), f"{name}/{MANIFEST}"
    theirs = manifest.get("run", {})
    for key, own in identity_of(run).items():
        if key in FILES and theirs.get(key) not in (None, own):
            raise CheckpointError(
                f"run {run.id}: {key} is not the one that {where} was written with "
                f"({shown({key: own}, key)}, was {shown(theirs, key)}); "
                f"{RESTORE.replace('it', key, 1)}"
            )
        if theirs.get(key) != own:
            raise CheckpointError(
                f"{where}: is of {key} {shown(theirs, key)}, and run {run.id} is of "
                f"{shown({key: own}, key)}; {RESTORE}"
            )
    if HOLDS[name] not in manifest:
        raise CheckpointError(
            f"{where}: holds no {HOLDS[name]}, so it is not that of {name}/; {RESTORE}"
        )
    return manifest


def shown(known: Mapping[str, str | None], key: str) -> str:
    """A hash as messages show it."""
    return (known.get(key) or "none")[:12]
