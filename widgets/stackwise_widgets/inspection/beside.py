"""The runs that `Inspect` offers: those beside the one it shows, and beside the one before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import stackwise as sw


def newest_and_beside(runs_dir: str | Path) -> tuple[sw.Run | None, list[sw.Run]]:
    """The newest run of a folder that has weights, else the newest, and all of the folder."""
    known = _once(sw.runs_in(runs_dir))
    return next((one for one in known if one.has_weights()), known[0] if known else None), known


def found_at(run: sw.Run | str | Path, runs_dir: str | Path) -> sw.Run:
    """A run that is given, or named by its id or its folder.

    Raises:
        RunError: If there is none of that name.
    """
    return run if isinstance(run, sw.Run) else sw.attach(run, runs_dir)


def beside(found: sw.Run, known: Sequence[sw.Run] = ()) -> list[sw.Run]:
    """The runs of the folder that a run lies in, then those of one other folder.

    Args:
        found: The run that is shown; it is among them whatever its folder lists.
        known: What was offered so far, the run that was shown before first: of these, the first
            that lies in another folder says which that is.

    Returns:
        Runs of which no two have the same id; of two that do, the one beside `found` is offered.
    """
    own = sw.runs_in(found.path.parent)
    own = own if any(run.id == found.id for run in own) else [found, *own]
    other = next((run for run in known if _folder(run) != _folder(found)), None)
    others = [] if other is None else sw.runs_in(other.path.parent)
    return _once([*(found if run.id == found.id else run for run in own), *others])


def _once(runs: Iterable[sw.Run]) -> list[sw.Run]:
    """The first run of each id."""
    first: dict[str, sw.Run] = {}
    for run in runs:
        first.setdefault(run.id, run)
    return list(first.values())


def _folder(run: sw.Run) -> Path:
    return run.path.resolve().parent
