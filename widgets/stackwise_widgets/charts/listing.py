"""Runs as a table: how they stand, in what they differ, what they came to, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import stackwise as sw
from stackwise_widgets.charts.brief import Brief, briefs_in, briefs_of, differing

CAME_TO = ("bits_per_byte", "flops", "peak_bytes", "seconds")
FIRST, LAST = ("state", "name"), (*CAME_TO, "problem", "id")


def runs_table(runs: Iterable[sw.Run | Brief | str | Path]) -> pd.DataFrame:
    """One row per run.

    Args:
        runs: Runs, their folders, or what was read of them; a folder that is damaged is a row, too.

    Returns:
        `state`, `name`; a column for each key of the experiment in which runs differ, by its dotted
        name; `bits_per_byte`, `flops`, `peak_bytes`, `seconds`, NaN where there is none; `problem`,
        None for none; `id`.
    """
    briefs = briefs_of(runs)
    keys = [key for key in differing(briefs) if key not in (*FIRST, *LAST)]
    rows = [
        {
            "state": brief.state,
            "name": brief.name,
            **{key: brief.asked.get(key) for key in keys},
            **{key: brief.number(key) for key in CAME_TO},
            "problem": brief.problem,
            "id": brief.id,
        }
        for brief in briefs
    ]
    # Objects, or pandas would make a float of an integer beside an empty place.
    frame = pd.DataFrame(rows, columns=[*FIRST, *keys, *LAST], dtype=object)
    return frame.astype({key: float for key in CAME_TO})


def list_runs(runs_dir: str | Path = "runs") -> pd.DataFrame:
    """The table of all runs in a folder, newest first; empty if there is no such folder."""
    return runs_table(briefs_in(runs_dir))
