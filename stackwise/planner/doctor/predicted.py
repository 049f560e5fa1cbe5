"""What the plan says of a run: the one place where its figures enter the doctor."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROUNDS = 2  # of calibration: half a minute


def peak_bytes(row: Mapping[str, Any]) -> int:
    """The peak that a row of a plan says; in plans that say none, the sum of its categories."""
    return int(row["peak_bytes"] if "peak_bytes" in row else row["bytes"]["total"])


def step_seconds(
    runs: Sequence[Mapping[str, Any]], device: str, folder: str
) -> list[list[float]] | None:
    """Seconds of a step of each stage of each run; in a process of its own, which calibrates.

    Args:
        runs: Their `experiment`, as YAML, and `placement`.
        device: `cpu` or `cuda`.
        folder: Scratch.

    Returns:
        None where this version plans no seconds.
    """
    names = [f"stackwise.planner.{name}" for name in ("calibrate", "seconds")]
    if any(importlib.util.find_spec(name) is None for name in names):
        return None
    from stackwise.config import Experiment, Placement
    from stackwise.curriculum import stages

    calibrating, seconds = (importlib.import_module(name) for name in names)
    rates = calibrating.calibrate(
        folder, output=Path(folder, "calibration.json"), device=device, rounds=ROUNDS
    ).hardware()
    planned = []
    for run in runs:
        exp, place = Experiment.from_yaml(run["experiment"]), Placement(**run["placement"])
        made = stages(exp)
        planned.append([seconds.step_seconds(exp, place, one, rates).total for one in made])
    return planned
