"""Runs in a folder: make one, find one, list them all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from stackwise.atomic import flush, flush_all, make_folder, sha256_of, sweep, write_text
from stackwise.jsontext import dumps
from stackwise.own_code import CodeFile
from stackwise.runs.carried import facts_of, write_code
from stackwise.runs.damage import RunError
from stackwise.runs.folder import Run
from stackwise.runs.lock import LOCK, Lock, RunBusy, is_held, take
from stackwise.runs.records import STAGES, is_run
from stackwise.seals import sealed
from stackwise.versions import RUN

MAKING_SECONDS, LOOK_SECONDS = 60.0, 0.02
FIXED = ("experiment.yaml", "tokenizer.json")
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
    pace: str | None = None,
    beside: Callable[[Path], None] | None = None,
    rerun: bool = False,
    code: Sequence[CodeFile] = (),
) -> Run:
    """Make a run folder, or find the one of that name.

    Of two processes that make the same one at once, the second waits and finds it.

    Args:
        runs_dir: Folder of the runs; made if it is not there.
        run_id: Name of the folder.
        experiment: YAML.
        placement: YAML.
        stages: The stages, as JSON.
        plan: What each is predicted to take.
        facts: What provenance.json says beside versions and machine: seed, data fingerprint.
        pace: What pace.json holds; None where the budget is no time.
        beside: Writes what else belongs into the folder, before that is a run.
        rerun: Make another, `-2`, `-3`, ..., even if there is one.
        code: Files of the user's own that bring kinds.

    Raises:
        RunError: If the name cannot be a folder's, or the folder cannot be made.
    """
    from stackwise.runs.provenance import provenance_of

    if not ID.fullmatch(run_id):
        raise RunError(
            f"run id {run_id!r}: only letters, digits, '.', '_' and '-' are allowed, 128 at most, "
            "the first a letter or digit"
        )
    held: Lock | None = None
    try:
        folder, held = _claim(Path(runs_dir), run_id, rerun)
        if held is None:
            return Run(folder)
        sweep(folder)
        write_text(folder / "experiment.yaml", experiment)
        write_text(folder / "placement.yaml", placement)
        write_plan(folder, plan)
        write_code(folder, code)
        if pace is not None:
            write_text(folder / "pace.json", pace)
        if beside is not None:
            beside(folder)
        staged = dumps([sealed(stage) for stage in stages], indent=1)
        came = {RUN.key: RUN.now, **provenance_of(folder), **facts, **facts_of(code)}
        came["files"] = files_of(folder, staged)
        write_text(folder / "provenance.json", dumps(sealed(came), indent=1))
        flush_all(folder)
        write_text(folder / STAGES, staged)
    except OSError as error:
        raise RunError(
            f"{runs_dir}: cannot hold a new run: {error.strerror}; name another folder with "
            "placement.runs_dir"
        ) from error
    finally:
        if held is not None:
            held.release()
    return Run(folder)


def write_plan(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Replace plan.json: what each stage is predicted to take."""
    write_text(folder / "plan.json", dumps([sealed(row) for row in rows], indent=1))


def files_of(folder: Path, staged: str) -> dict[str, str]:
    """Hashes of the files that stay as they are made, by name."""
    kept = [folder / name for name in FIXED if (folder / name).is_file()]
    return {path.name: sha256_of(path) for path in kept} | {
        STAGES: sha256(staged.encode()).hexdigest()
    }


def _alone(folder: Path) -> Lock | None:
    """The right to make a run's folder; None once it is one, by another process perhaps."""
    until = time.monotonic() + MAKING_SECONDS
    while not is_run(folder):
        try:
            held = take(folder)
        except RunBusy as busy:
            if time.monotonic() > until:
                raise RunError(f"{busy}; it has not made its folder whole yet") from None
            time.sleep(LOOK_SECONDS)
            continue
        if not is_run(folder):
            return held
        held.release()
    return None


def _claim(runs_dir: Path, run_id: str, rerun: bool) -> tuple[Path, Lock | None]:
    """The run's folder, and the right to make it; with `rerun` one that was no run before.

    So what a killed process had made half is made whole, and keeps no name.
    """
    make_folder(runs_dir)
    names = (run_id if number == 1 else f"{run_id}-{number}" for number in range(1, 1 << 30))
    for name in names:
        folder = runs_dir / name
        try:
            folder.mkdir()
        except FileExistsError:
            if not folder.is_dir() or (rerun and not _is_half_made(folder)):
                continue
        flush(runs_dir)
        held = _alone(folder)
        if held is not None or not rerun:
            return folder, held
    raise RunError(f"{runs_dir}: has no name left for {run_id!r}")


def _is_half_made(folder: Path) -> bool:
    """Whether a process began to make a run there, and is gone."""
    begun = (folder / LOCK).exists() or not any(folder.iterdir())
    return begun and not is_run(folder) and not is_held(folder)


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
