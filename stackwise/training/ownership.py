"""Which run a checkpoint is of: no other run's is trained on or answered with.

A run is known by what decides its weights and not by its folder, which may be renamed and moved:
its experiment and stages, its data, and the model that it began with. Their hashes stand in each
manifest of the run. What else a manifest holds is in `saved.py` and `bests.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stackwise.bounded import read_bytes
from stackwise.runs import Run
from stackwise.runs.damage import RESTORE, DamagedRun
from stackwise.runs.pruned import pruned_of, pruned_text
from stackwise.runs.records import LARGEST, MANIFEST
from stackwise.training.manifest import CheckpointError, read_manifest

WHOLE = ("stage", "step", "total_steps")  # counters that every checkpoint has
RACK, BEST = "rack", "best"
HOLDS = {RACK: "counters", BEST: "loss"}  # what only the manifest in this folder holds
FILES = ("experiment.yaml", "stages.json")


def identity_of(run: Run) -> dict[str, str | None]:
    """What a run is known by: names to hashes; None for start weights that it does not have.

    Experiment, data and start weights are those that it began with, from provenance.json. Of the
    files that are carried out, the text counts.

    Raises:
        DamagedRun: If provenance.json is missing or damaged.
    """
    facts = run.provenance()
    try:
        began: dict[str, str | None] = {
            "experiment": facts["experiment"],
            "data": facts["data"]["fingerprint"],
            "start weights": facts["start"]["weights"] if "start" in facts else None,
        }
    except (LookupError, TypeError):
        raise DamagedRun(f"run {run.id}: provenance.json is damaged; {RESTORE}") from None
    if carried := run.carries():
        began["code"] = hashlib.sha256("".join(carried.values()).encode()).hexdigest()
    found = {name: read_bytes(run.path / name, LARGEST) for name in FILES}
    return began | {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def check_files(run: Run) -> None:
    """Compare what is carried out with what was written as the run was made.

    Once there is a checkpoint, its manifest says the same (`own_manifest`).

    Raises:
        DamagedRun: If a file has changed since.
    """
    for name in FILES:
        run.compare(name)


def own_manifest(run: Run, name: str, home: Path | None = None) -> dict[str, Any]:
    """The manifest of one of a run's checkpoints.

    Args:
        run: The run.
        name: The checkpoint's folder in it: `rack` or `best`.
        home: The folder that this lies in; None for the run's own.

    Raises:
        CheckpointError: If there is none, or it is damaged or of another run.
        DamagedRun: If the run's own provenance.json is missing or damaged.
    """
    folder = (home or run.path) / name
    if not (folder / MANIFEST).exists() and "weights" in pruned_of(run.path):
        raise CheckpointError(f"run {run.id}: {pruned_text(run.path)}; train it again (--rerun)")
    manifest, where = read_manifest(folder), f"{name}/{MANIFEST}"
    theirs = manifest.get("run", {})
    if theirs is None:  # of before it was written down
        theirs = identity_of(run)
    if not isinstance(theirs, dict):
        raise CheckpointError(f"{where}: is damaged; {RESTORE}")
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
    if name == RACK:
        check_counters(manifest["counters"], where)
    return manifest


def check_counters(value: Any, where: str) -> None:
    """Raise unless a value says how far a run has come, as a checkpoint does.

    Raises:
        CheckpointError: If it does not.
    """
    if not are_counters(value):
        raise CheckpointError(f"{where}: its counters are none; {RESTORE}")


def are_counters(value: Any) -> bool:
    """Whether a value says how far a run has come, as a checkpoint does."""
    from stackwise.training.work import Counters

    if not isinstance(value, dict) or not value.keys() <= vars(Counters()).keys():
        return False
    whole = all(type(value.get(key)) is int and value[key] >= 0 for key in WHOLE)
    numbers = (x for key, x in value.items() if key not in WHOLE)
    return whole and all(x is None or type(x) in (int, float) for x in numbers)


def shown(known: Mapping[str, str | None], key: str) -> str:
    """A hash as messages show it."""
    return str(known.get(key) or "none")[:12]
