"""Writes how far plans were off where plans read it: `stackwise/planner/bars.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from stackwise.planner.doctor.planned import bar_of_ratios

FILE = Path(__file__).parents[1] / "stackwise" / "planner" / "bars.json"


def publish(kind: Literal["peak", "time"], ratios: Sequence[float]) -> None:
    """Keep the most that was planned too much and too little of what was measured.

    Args:
        kind: Of the plan.
        ratios: Planned over measured, of all that a benchmark declares.
    """
    found = json.loads(FILE.read_text("utf-8"))
    found[kind] = {key: round(value, 4) for key, value in bar_of_ratios(ratios).items()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
