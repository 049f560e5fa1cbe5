"""What a study will take before it is launched: each arm, its grid, and what sharing saves.

FLOPs, tokens and bytes are arithmetic. Epochs need the text, and hours a machine that was measured:
where one is not at hand they are not known, and the plan says why.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.data.errors import DataError
from stackwise.errors import ExperimentError
from stackwise.planner.hardware import Hardware, hardware_called
from stackwise.report import bytes_text, count_text, duration, figure, number, table
from stackwise.study.arms import Arm
from stackwise.study.budgets import spent
from stackwise.study.controls import bytes_of
from stackwise.study.jobs import ARM, TUNING, Job
from stackwise.study.sharing import flops_shared, sources_of
from stackwise.study.summary import MOST_EPOCHS
from stackwise.training.start import dataset_of, settled

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.study.study import Study

HOUR = 3600.0


@dataclass(frozen=True)
class StudyPlan:
    """What a study takes.

    Attributes:
        rows: One mapping per arm: arm, is_control, runs and tuning_runs, tokens and flops of one
            run, epochs, flops_total and tuning_flops of all, shared_flops (what branching from
            other arms saves at most, if their best rates are the same), bytes, hours of all.
        notes: What is not known, and why; which arms pass four epochs.
    """

    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> int:
        """How many runs there are, those of the grid included."""
        return sum(row["runs"] + row["tuning_runs"] for row in self.rows)

    @property
    def flops(self) -> float:
        """Of all runs together, what is shared counted once."""
        whole = sum(row["flops_total"] + row["tuning_flops"] for row in self.rows)
        return float(whole - sum(row["shared_flops"] for row in self.rows))

    @property
    def hours(self) -> float:
        """Of all runs one after the other; NaN on a machine that was not measured."""
        return float(sum(row["hours"] for row in self.rows))

    def to_frame(self) -> pd.DataFrame:
        """One row per arm."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        whole = {"runs": self.runs, "flops": self.flops, "hours": self.hours}
        return {"arms": list(self.rows), **whole, "notes": list(self.notes)}

    def __str__(self) -> str:
        head = ["arm", "runs", "grid runs", "tokens", "FLOPs", "epochs", "memory"]
        head += ["all runs, FLOPs", "grid, FLOPs", "shared", "time"]
        lines = [
            [
                row["arm"] + (" (control)" if row["is_control"] else ""),
                str(row["runs"]),
                str(row["tuning_runs"]),
                count_text(row["tokens"]),
                figure(row["flops"]),
                number(row["epochs"], 2),
                bytes_text(row["bytes"]),
                figure(row["flops_total"]),
                figure(row["tuning_flops"]),
                figure(row["shared_flops"]),
                duration(row["hours"] * HOUR),
            ]
            for row in self.rows
        ]
        whole = f"{self.runs} runs, {self.flops:.3g} FLOPs, {duration(self.hours * HOUR)} in all"
        return "\n".join([table(head, lines), whole, *self.notes])


def plan_study(study: Study, hardware: Hardware | str | Path = "this") -> StudyPlan:
    """Work out what a study takes.

    Raises:
        ExperimentError: If there is no such hardware.
    """
    machine = hardware if isinstance(hardware, Hardware) else hardware_called(hardware)
    jobs = [*study.tuning_jobs(), *study.jobs({})]
    shared = dict.fromkeys(range(len(jobs)), 0.0)
    experiments = [job.experiment for job in jobs]
    for number_, source in enumerate(sources_of(experiments, study.placement)):
        if source is not None:
            exp, _ = settled(experiments[number_], study.placement)
            shared[number_] = flops_shared(exp, source.stages)
    rows, notes = [], dict.fromkeys(study.notes)
    for arm in study.arms:
        mine = [n for n, job in enumerate(jobs) if job.arm.name == arm.name]
        epochs, why = epochs_of(arm, study)
        if why:
            notes[why] = None
        if epochs > MOST_EPOCHS:
            notes[
                f"{arm.name}: {epochs:.1f} epochs over the text, more than {MOST_EPOCHS:.0f}; "
                "confirm on a longer one"
            ] = None
        rows.append(
            _row(study, arm, [jobs[n] for n in mine])
            | {"epochs": epochs, "shared_flops": sum(shared[n] for n in mine)}
            | {"hours": sum(hours_of(jobs[n], study, machine) for n in mine)}
        )
    if machine.origin == "unknown":
        notes["the time is not known: this machine has not been measured (stackwise calibrate)"] = (
            None
        )
    return StudyPlan(tuple(rows), tuple(notes))


def _row(study: Study, arm: Arm, jobs: list[Job]) -> dict[str, Any]:
    exp, place = settled(arm.experiment, study.placement)
    each = spent(exp)
    tuning = [job for job in jobs if job.role == TUNING]
    others = [job for job in jobs if job.role not in (TUNING, ARM)]
    own = [job for job in jobs if job.role == ARM]
    again = sum(spent(settled(job.experiment, place)[0])["flops"] for job in others)
    return {
        "arm": arm.name,
        "is_control": study.control is not None and arm.name == study.control.name,
        "runs": len(own) + len(others),
        "tuning_runs": len(tuning),
        **each,
        "flops_total": each["flops"] * len(own) + again,
        "tuning_flops": each["flops"] * len(tuning),
        "bytes": bytes_of(arm.experiment, study.placement),
    }


def epochs_of(arm: Arm, study: Study) -> tuple[float, str]:
    """How often an arm reads the text; NaN with the reason where it cannot be opened here."""
    exp, place = settled(arm.experiment, study.placement)
    try:
        dataset = dataset_of(exp, place.data_dir)
    except (DataError, OSError) as error:
        return math.nan, f"epochs are not known, since the text cannot be read here: {error}"
    return spent(exp)["tokens"] / (dataset.n_samples * exp.data.seq_len), ""


def hours_of(job: Job, study: Study, machine: Hardware) -> float:
    """What a run takes on a machine, all that it does beside its steps included."""
    from stackwise.planner.plan import plan

    exp, place = settled(job.experiment, study.placement)
    if machine.origin == "unknown":
        return math.nan
    try:
        return plan(exp, place, hardware=machine).seconds / HOUR
    except ExperimentError:  # a placement on another kind of device than the machine is
        return plan(exp, place.replace(device="auto"), hardware=machine).seconds / HOUR
