"""The file that the doctor leaves: all figures of an examination, and the plan's error bars in it.

    {"kind": "stackwise doctor", "format": 1, "made": ..., "machine": ..., "checks": [...],
     "bars": {"AMD EPYC": {"peak": {"over_frac": 0.04, "under_frac": 0.01, "figures": 16}, ...}}}

Bars are of devices by name. Those of devices that an examination did not measure stay from the one
before, each with its own date and version.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stackwise import bounded
from stackwise.atomic import write_text
from stackwise.choice import Checked
from stackwise.data.cache import cache_folder
from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps, loads
from stackwise.report import program

KIND, FORMAT, NAME = "stackwise doctor", 1, "doctor.json"
LARGEST = 16 << 20
SMALL = 64 << 20  # bytes: of peaks under it libraries are a large part, and no bar speaks of them


class DoctorError(ValueError):
    """A file of the doctor's that is missing, damaged, or not one of its."""


class Bar(Checked):
    """How far plans were off on a device, at worst.

    Attributes:
        over_frac: By so much a plan said more than was measured, as a part of the measurement.
        under_frac: By so much it said less.
        figures: Comparisons.
    """

    over_frac: float = Field(ge=0)
    under_frac: float = Field(ge=0, le=1)
    figures: int = Field(ge=1)


class Bars(Checked):
    """The error bars of plans on a device; None where they were not measured.

    Attributes:
        peak: Of peak memory.
        time: Of the time of a step.
        made: When, ISO 8601.
        version: Of StackWise.
    """

    peak: Bar | None = None
    time: Bar | None = None
    made: str
    version: str


class Record(Checked):
    """What a file has to hold; its checks are for people, and not looked into."""

    kind: Literal["stackwise doctor"]
    format: Literal[1]
    made: str
    machine: str
    ok: bool
    checks: tuple[dict[str, Any], ...]
    bars: dict[str, Bars]
    environment: dict[str, Any] = Field(default_factory=dict)
    quick: bool = False
    seconds: float = 0.0
    verdict: str = ""


def usual_file() -> Path:
    """Where the record lies if nothing else is said: in StackWise's folder of the user's cache."""
    return cache_folder() / NAME


def error_bars(path: str | Path | None = None) -> dict[str, Bars] | None:
    """The plan's error bars on this machine, as `stackwise doctor` has measured them.

    Args:
        path: The doctor's file; None for the usual one, which need not be there.

    Returns:
        The name of each device that was measured to its bars; None where there are none.

    Raises:
        DoctorError: If the file is damaged or none of the doctor's, or the one named is missing.
    """
    file = usual_file() if path is None else Path(path)
    if path is None and not file.exists():
        return None
    return read(file).bars or None


def read(file: Path) -> Record:
    """A record, checked.

    Raises:
        DoctorError: If it is missing, damaged, or no record.
    """
    again = f"make another: {program()} doctor --output FILE"
    try:
        if file.stat().st_size > LARGEST:
            raise DoctorError(f"{file}: is larger than a file of the doctor's; {again}")
        value = loads(bounded.read_text(file.resolve()))
    except FileNotFoundError:
        raise DoctorError(f"{file}: is not there; {again}") from None
    except OSError as error:
        raise DoctorError(f"{file}: cannot be read: {error.strerror}; {again}") from None
    except ValueError as error:
        if isinstance(error, DoctorError):
            raise
        raise DoctorError(f"{file}: is not JSON, or cut; {again}") from None
    if not isinstance(value, Mapping) or value.get("kind") != KIND:
        raise DoctorError(f"{file}: is no file of the doctor's; {again}")
    if value.get("format") != FORMAT:
        raise DoctorError(f"{file}: format {value.get('format')!r} is not {FORMAT}; {again}")
    try:
        return Record.model_validate(dict(value))
    except ExperimentError as error:
        raise DoctorError(f"{file}: {error}; {again}".replace("\n", "; ")) from None


def write(file: Path, facts: Mapping[str, Any], bars: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a record, with the bars of other devices that one there before holds.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        before: dict[str, Any] = {k: v.model_dump() for k, v in read(file).bars.items()}
    except DoctorError:  # none there, or a damaged one, which gives way
        before = {}
    head = {"kind": KIND, "format": FORMAT, **facts}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, dumps({**head, "bars": {**before, **bars}}, indent=1) + "\n")


def device_name(device: str) -> str:
    """What a device is called in the record: its card's name, or its processor's.

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    from stackwise.runs.provenance import processor

    return processor() or platform.machine() or "cpu"
