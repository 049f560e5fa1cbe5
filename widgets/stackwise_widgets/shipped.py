"""The finished runs that ship with StackWise, so that every panel has something to show at once."""

from __future__ import annotations

from pathlib import Path

import stackwise as sw


def shipped_runs() -> list[sw.Run]:
    """Those in `data/runs/` of the clone that this is imported from; none without one."""
    return sw.runs_in(Path(sw.__file__).parents[1] / "data" / "runs")
