"""The runs that a panel has to show at once: one's own, or the finished ones that ship."""

from __future__ import annotations

from pathlib import Path

import stackwise as sw

SHIPPED = Path(sw.__file__).parents[1] / "data" / "runs"  # in a clone


def shipped_runs() -> list[sw.Run]:
    """The finished runs that ship; none without a clone."""
    return sw.runs_in(SHIPPED)


def is_shipped(run: sw.Run) -> bool:
    """Whether it is one of those, which are the project's files: none to be renamed or deleted."""
    path = run.path.resolve()
    return path.parent == SHIPPED.resolve() and path.name.startswith("shipped-")


def first_run(runs_dir: str | Path) -> sw.Run | None:
    """The run that one comes back to: a live one, else the newest, else one that ships."""
    own = sw.runs_in(runs_dir)
    live = (run for run in own if run.is_live)
    return next(live, None) or next(iter([*own, *shipped_runs()]), None)
