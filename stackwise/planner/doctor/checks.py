"""What a check is: a function from a visit to a finding.

The list of them is in `examination.py`. A finding says what was measured, what that means and,
where it is not as it should be, what to do; its figures go into the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from stackwise.planner.doctor.alone import Child, ChildFailed, Task
from stackwise.report import program

State = Literal["ok", "failed", "skipped"]
WHERE_TO_TELL = "tell us with the file of figures"
Tell = Callable[[str], None]


class Caller(Protocol):
    """Calls a task elsewhere and gives what it returns."""

    def __call__(self, task: Task, **given: Any) -> Any:
        """As `Visit.alone`."""
        ...


@dataclass(frozen=True)
class Finding:
    """What came of a check.

    Attributes:
        state: Whether all is as it should be.
        measured: The figures in words; of a check that was skipped, why.
        means: What they mean.
        to_do: The way out, where it failed.
        figures: For the record, as JSON.
    """

    state: State
    measured: str
    means: str = ""
    to_do: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Visit:
    """What checks work with.

    Attributes:
        device: `cpu` or `cuda`.
        folder: Scratch, gone at the end; on the disk of the runs.
        memory_bytes: The most that one of the six runs may take; None: by what is free.
        until: When all has to be done, on the clock of `time.monotonic`.
        call: Calls a task in a process of its own.
        tell: Takes a line that says how far a check has come.
        results: What a check leaves for later ones.
    """

    device: str
    folder: Path
    memory_bytes: int | None
    until: float
    call: Caller
    tell: Tell = print
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float:
        """Of the time that the doctor may take."""
        return self.until - time.monotonic()


@dataclass(frozen=True)
class Check:
    """An entry of the list.

    Attributes:
        run: The check.
        doing: What it does, while it does it.
        quick: Whether `--quick` has it.
    """

    run: Callable[[Visit], Finding]
    doing: str
    quick: bool = False


def call_alone(folder: Path, until: float, most_seconds: float, tell: Tell = print) -> Caller:
    """What calls tasks in processes of their own, each for so long at most.

    Args:
        folder: Scratch: what data they prepare goes there, too.
        until: When all has to be done, on the clock of `time.monotonic`.
        most_seconds: Of one task.
        tell: Takes the lines that tasks tell.
    """

    def call(task: Task, **given: Any) -> Any:
        seconds = min(most_seconds, until - time.monotonic())
        with Child(task, given, seconds=seconds, variables=variables(folder)) as child:
            for line in child.lines():
                if "result" in line:
                    return line["result"]
                if isinstance(line["told"], str):
                    tell(line["told"])
        raise AssertionError("lines end with a result or raise")

    return call


def variables(folder: Path) -> dict[str, str]:
    """Of the environment of tasks, so that what they prepare lies in scratch and goes with it."""
    return {"STACKWISE_CACHE": str(folder / "cache")}


def found_by(check: Check, visit: Visit) -> Finding:
    """What comes of a check, also where it cannot be carried out."""
    late = Finding("skipped", "the doctor's time is over: this machine is slow, or busy")
    if visit.seconds_left <= 0:
        return late
    try:
        return check.run(visit)
    except ChildFailed as error:
        if visit.seconds_left <= 0:
            return late
        way_out = f"close what else is running and try again; if it stays, {WHERE_TO_TELL}"
        return Finding("failed", str(error), "it could not be carried out", way_out)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return Finding(
            "failed",
            f"{place}{error.strerror or error}",
            "the folder for scratch runs cannot be used",
            f"make room, or name another folder: {program()} doctor --folder DIR",
        )


def joined(problems: Sequence[str]) -> str:
    """Several problems as one line."""
    return "; ".join(problems)
