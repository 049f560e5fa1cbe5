"""What a run's events and plan say, as frames: held-out measurements, and bytes by category."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.runs.events import counted_once

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.runs.measured import Measured

EVAL_COLUMNS = ["stage", "step", "tokens", "flops", "seconds", "loss", "bits_per_byte"]


def evals_of(run: Measured) -> pd.DataFrame:
    """Held-out measurements, one row each; those of steps that were taken again count once."""
    import pandas as pd

    rows = counted_once(run.events("eval"))
    return pd.DataFrame(rows, columns=None if rows else EVAL_COLUMNS)


def memory_of(run: Measured) -> pd.DataFrame:
    """Bytes by category of each stage: predicted by arithmetic, and measured."""
    import pandas as pd

    measured = {event["stage"]: event for event in run.events("memory")}
    rows = []
    for row in run.plan():
        seen = measured.get(row["stage"], {})
        for kind, count in row["bytes"].items():
            rows.append((row["stage"], row["name"], kind, count, seen.get(kind)))
        rows.append((row["stage"], row["name"], "peak", row.get("peak_bytes"), seen.get("peak")))
    return pd.DataFrame(rows, columns=["stage", "name", "category", "predicted", "measured"])
