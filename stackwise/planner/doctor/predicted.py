"""What the plan says of a run: the one place where its figures enter the doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROUNDS = 2  # of calibration: half a minute


def step_seconds(runs: Sequence[Mapping[str, Any]], device: str, folder: str) -> list[list[float]]:
    """Seconds of a step of each stage of each run; in a process of its own, which calibrates.

    Args:
        runs: Their `experiment`, as YAML, and `placement`.
        device: `cpu` or `cuda`.
        folder: Scratch.
    """
    from stackwise.config import Experiment, Placement
    from stackwise.curriculum import stages
    from stackwise.planner import seconds
    from stackwise.planner.calibrate import calibrate

    found = calibrate(folder, output=Path(folder, "calibration.json"), device=device, rounds=ROUNDS)
    rates = found.hardware()
    planned = []
    for run in runs:
        exp, place = Experiment.from_yaml(run["experiment"]), Placement(**run["placement"])
        made = stages(exp)
        planned.append([seconds.step_seconds(exp, place, one, rates).total for one in made])
    return planned
