"""What the plan says of a run: the one place where its figures enter the doctor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Round = list[dict[str, Any]]  # of each probe its name, size, unit and rates


def rates(device: str, folder: str) -> Round:
    """All of calibration's probes once; in a process of its own.

    Args:
        device: `cpu` or `cuda`.
        folder: Scratch, on the disk of the runs.
    """
    import torch

    from stackwise.planner.calibrate import Samples, measure_round

    found = Samples()
    measure_round(found, torch.device(device), Path(folder))
    return [
        {"name": name, "size": size, "unit": found.units[name], "rates": each}
        for (name, size), each in found.rates.items()
    ]


def step_seconds(
    runs: Sequence[Mapping[str, Any]], rounds: Sequence[Round], device: str
) -> list[list[float]]:
    """Seconds of a step of each stage of each run, as planned from some rounds together.

    Args:
        runs: Their `experiment`, as YAML, and `placement`.
        rounds: What `rates` gave.
        device: Of the rates.
    """
    import torch

    from stackwise.config import Experiment, Placement
    from stackwise.curriculum import stages
    from stackwise.planner import seconds
    from stackwise.planner.calibrate import Samples
    from stackwise.planner.calibration import Calibration, facts_of

    samples = Samples()
    for each in rounds:
        for probe in each:
            samples.add(**probe)
    machine = Calibration(facts_of(torch.device(device)), samples.taken()).hardware()
    planned = []
    for run in runs:
        exp, place = Experiment.from_yaml(run["experiment"]), Placement(**run["placement"])
        made = stages(exp)
        planned.append([seconds.step_seconds(exp, place, one, machine).total for one in made])
    return planned
