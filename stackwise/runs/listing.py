"""Runs in a folder: make one, find one, list them all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.jsontext import dumps
from stackwise.runs.folder import STAGES, Run, RunError, is_run

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def make_run(
    runs_dir: str | Path,
    run_id: str,
    *,
    experiment: str,
    placement: str,
    stages: list[dict[str, Any]],
    plan: list[dict[str, Any]],
    facts: dict[str, Any],
    beside: Callable[[Path], None] | None = None,
    rerun: bool = False,
) -> Run:
    """Make a run folder, or find the one of that name.

    Args:
        runs_dir: Folder of the runs; made if it is not there.
        run_id: Name of the folder.
        experiment: YAML.
        placement: YAML.
        stages: The stages, as JSON.
        plan: What each is predicted to take.
        facts: What provenance.json says beside versions and machine: seed, data fingerprint.
        beside: Writes what else belongs into the folder, before that is a run.
        rerun: Make another, `-2`, `-3`, ..., even if there is one.

    Raises:
        RunError: If the name cannot be a folder's, or the folder cannot be made.
    """
    from stackwise.runs.provenance import provenance_of

    if not ID.fullmatch(run_id):
        raise RunError(
            f"run id {run_id!r}: only letters, digits, '.', '_' and '-' are allowed, 128 at most, "
            "the first a letter or digit"
        )
    try:
        folder = _claim(Path(runs_dir), run_id, rerun)
        if is_run(folder):
            return Run(folder)
        write_text(folder / "experiment.yaml", experiment)
        write_text(folder / "placement.yaml", placement)
        write_text(folder / "plan.json", dumps(plan, indent=1))
        write_text(folder / "provenance.json", dumps({**provenance_of(folder), **facts}, indent=1))
        if beside is not None:
            beside(folder)
        write_text(folder / STAGES, dumps(stages, indent=1))
    except OSError as error:
        raise RunError(
            f"{runs_dir}: cannot hold a new run: {error.strerror}; name another folder with "
            "placement.runs_dir"
        ) from error
    return Run(folder)


def _claim(runs_dir: Path, run_id: str, rerun: bool) -> Path:
    """The run's folder; with `rerun` one that was not there before."""
    runs_dir.mkdir(parents=True, exist_ok=True)
    names = (run_id if number == 1 else f"{run_id}-{number}" for number in range(1, 1 << 30))
    for name in names:
        folder = runs_dir / name
        try:
            folder.mkdir()
        except FileExistsError:
            if rerun or not folder.is_dir():
                continue
        return folder
    raise RunError(f"{runs_dir}: has no name left for {run_id!r}")


def attach(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """A run by its folder, its id, or the beginning of its id.

    Raises:
        RunError: If there is none, or several; the message lists what there is.
    """
    if not str(run):
        raise RunError("'' names no run; `stackwise runs` lists those there are")
    if is_run(Path(run)):
        return Run(run)
    known = runs_in(runs_dir)
    exact = [found for found in known if found.id == str(run)]
    found = exact or [other for other in known if other.id.startswith(str(run))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(other.id for other in found or known)) or "none"
    why = f"{len(found)} runs begin so" if found else "no such run"
    raise RunError(f"{run}: {why} in {runs_dir}; there are: {names}")


def runs_in(runs_dir: str | Path = "runs") -> list[Run]:
    """The runs in a folder, newest first; what else lies there is left out.

    So is what begins with a dot, which is half made or half removed, and what goes meanwhile.
    """
    folder = Path(runs_dir)
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []
    found: list[tuple[float, Run]] = []
    for name in names:
        with suppress(OSError, RunError):
            found.append((-(folder / name / STAGES).stat().st_mtime, Run(folder / name)))
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]
