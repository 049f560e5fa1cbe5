"""Writes how far plans were off where plans read it: `stackwise/planner/bars.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

FILE = Path(__file__).parents[1] / "stackwise" / "planner" / "bars.json"


def publish(kind: Literal["peak", "time"], ratios: Iterable[float]) -> None:
    """Keep the most that was planned too much and too little of what was measured.

    Args:
        kind: Of the plan.
        ratios: Planned over measured, of all that a benchmark declares.
    """
    off = [ratio - 1 for ratio in ratios]
    over, under = max(0.0, *off), max(0.0, *(-each for each in off))
    found = json.loads(FILE.read_text("utf-8"))
    found[kind] = {
        "over_frac": round(over, 4),
        "under_frac": round(under, 4),
        "figures": len(off),
    }
    FILE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
