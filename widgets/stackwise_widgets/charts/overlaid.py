"""The numbers of several runs laid over each other: held-out loss, and what each came to.

In bits per byte, and only where a loss is the whole bound: the loss of a stage in a noise band is
its share, and that of mlm bounds nothing; such a run shows in its final point alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

import stackwise as sw
from stackwise.runs.events import counted_once
from stackwise_widgets.charts.brief import Brief, briefs_of, called
from stackwise_widgets.charts.stretches import number_or_nan

Over = Literal["flops", "steps", "tokens", "seconds", "peak_bytes"]
OVER = ("flops", "steps", "tokens", "seconds", "peak_bytes")
SPENT = ("steps", "tokens", "flops", "seconds")
COLUMNS = ["label", "run", "seed", "state", "kind", "stage", *SPENT, "peak_bytes", "bits_per_byte"]


def overlay_data(runs: Iterable[sw.Run | Brief | str | Path]) -> pd.DataFrame:
    """Every number that an overlay draws.

    Args:
        runs: Runs, their folders, or what was read of them. What cannot be read gives no row.

    Returns:
        One row per look (`kind` heldout) and per finished run (final, on all held-out text).
        `label`: of the experiment, the same for all its seeds. `bits_per_byte`: NaN where the loss
        is no whole bound. Numbers that are not known are NaN.
    """
    briefs = briefs_of(runs)
    labels = called(briefs)
    frames = [found for brief in briefs if len(found := _of_run(brief, labels[brief.like]))]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def _of_run(brief: Brief, label: str) -> pd.DataFrame:
    looks = _looks(brief)
    rows: dict[str, list[Any]] = {
        "kind": ["heldout"] * len(looks),
        "stage": _column(looks, "stage"),
        "steps": _column(looks, "step"),
        **{key: _column(looks, key) for key in ("tokens", "flops", "seconds", "bits_per_byte")},
    }
    if brief.result:
        last = {"kind": "final", "stage": rows["stage"][-1] if looks else np.nan}
        last |= {"steps": rows["steps"][-1] if looks else np.nan}
        last |= {"tokens": brief.number("trained_tokens")}
        last |= {key: brief.number(key) for key in ("flops", "seconds", "bits_per_byte")}
        for key, value in last.items():
            rows[key].append(value)
    peak = brief.number("peak_bytes")
    same = {"label": label, "run": brief.id, "seed": brief.seed, "state": brief.state}
    return pd.DataFrame({**rows, **same, "peak_bytes": peak}, columns=COLUMNS)


def _looks(brief: Brief) -> list[dict[str, Any]]:
    if brief.run is None:
        return []
    try:
        return counted_once(brief.run.events("eval"))
    except (OSError, ValueError, TypeError):
        return []


def _column(looks: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [number_or_nan(look.get(key)) for look in looks]


def repeated(data: pd.DataFrame) -> dict[str, str]:
    """Runs that are another's seed of the same experiment once more, and which run's that is."""
    first: dict[tuple[Any, Any], str] = {}
    out: dict[str, str] = {}
    for row in data.drop_duplicates(["label", "run"]).itertuples():
        seed = row.run if pd.isna(row.seed) else row.seed
        if (known := first.setdefault((row.label, seed), row.run)) != row.run:
            out[row.run] = known
    return out


def over_seeds(data: pd.DataFrame, x: Over) -> pd.DataFrame:
    """Mean, lowest and highest bits per byte of each experiment over its seeds, and its mean `x`.

    A look that a seed lacks, or has no number for, is left out: a mean of fewer seeds would jump
    there. Runs that were damaged do not count as seeds, and neither do copies of a run: of each
    seed the first run counts. `runs` is how many do.
    """
    data = data[~data["run"].isin(set(repeated(data)))]
    data = data.drop_duplicates(["label", "run", "kind", "stage", "steps"])  # of equal folder names
    each = data.groupby("label", sort=False)["run"].nunique()
    by = ["label", "kind", "stage", "steps"]
    found = data.groupby(by, sort=False, dropna=False).agg(
        place=(x if x not in by else "tokens", "mean"),
        mean=("bits_per_byte", "mean"),
        low=("bits_per_byte", "min"),
        high=("bits_per_byte", "max"),
        seeds=("bits_per_byte", "count"),
        left=("peak_bytes", "min"),
        right=("peak_bytes", "max"),
    )
    found = found.reset_index()
    if x == "steps":
        found["place"] = found["steps"]
    found["runs"] = found["label"].map(each)
    whole = found["seeds"] == found["runs"]
    gone = ["mean", "low", "high"]
    found.loc[~whole, gone] = np.nan
    return found
