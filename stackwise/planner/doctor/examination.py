"""The examination: each check in turn, what came of it, a verdict, and the record that stays.

What a check looks at stands in its own file. Everything is said as it comes; scratch is removed at
the end, however that comes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stackwise.planner.doctor.checks import Check, Finding, Tell, Visit, call_alone, found_by
from stackwise.planner.doctor.disk import disk
from stackwise.planner.doctor.environment import environment
from stackwise.planner.doctor.killing import killed_and_resumed
from stackwise.planner.doctor.layers import frozen_layers
from stackwise.planner.doctor.link import link
from stackwise.planner.doctor.planned import peaks, times
from stackwise.planner.doctor.record import DoctorError, read, usual_file, write
from stackwise.planner.doctor.scratch import scratch
from stackwise.planner.doctor.shapes import LEAST_BYTES
from stackwise.planner.doctor.sources import trunk_sources
from stackwise.planner.doctor.words import bars_of, facts_of, is_good, said, verdict, wrapped

CHECKS: dict[str, Check] = {
    "environment": Check(
        environment, "versions, device, room, and which dtype is faster", quick=True
    ),
    "frozen layers": Check(
        frozen_layers, "their outputs and gradients beside plain ones", quick=True
    ),
    "trunk sources": Check(
        trunk_sources, "small runs with the trunk in memory, lent and cached", quick=True
    ),
    "peak memory": Check(peaks, "six runs, their peak beside the plan's"),
    "step time": Check(times, "the time of their steps beside the plan's"),
    "disk": Check(disk, "writing with fsync, and reading past the cache"),
    "link": Check(link, "copies between host and card"),
    "kill and resume": Check(killed_and_resumed, "a run is killed in a stage, and goes on"),
}
LIMIT_SECONDS, TASK_SECONDS = 600.0, 240.0


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        ok: Whether checks were made and none failed.
        verdict: In plain words.
        findings: What came of each check, by its name.
        file: The record.
    """

    ok: bool
    verdict: str
    findings: Mapping[str, Finding]
    file: Path


def doctor(
    *,
    quick: bool = False,
    device: str = "auto",
    folder: str | Path | None = None,
    output: str | Path | None = None,
    memory_bytes: int | None = None,
    tell: Tell = print,
) -> Report:
    """Find out whether to trust StackWise on this machine, in at most ten minutes.

    Real runs in processes of their own, whose files go into scratch that is removed. It leaves one
    file of figures, which `error_bars` reads.

    Args:
        quick: The environment and the gradient gates alone, under a minute.
        device: `auto`, `cpu` or `cuda`.
        folder: Where scratch is made; None: in `runs`, the usual folder of runs. The disk that is
            measured is the one that it lies on.
        output: The file of figures; None: `doctor.json` in StackWise's folder of the user's cache.
        memory_bytes: The most that one of the six runs may take; None: an eighth of what is free,
            1 GiB at most, on a card 4.
        tell: Takes each line as it comes.

    Raises:
        ExperimentError: If there is no such device.
        DoctorError: If the output is there and none of the doctor's, or the folder is a file.
        OSError: If scratch or the record cannot be written.
    """
    from stackwise.config import Placement
    from stackwise.training.start import device_of

    used = device_of(Placement.model_validate({"device": device})).type
    home = Path("runs" if folder is None else folder)
    file = checked(output, home)
    if memory_bytes is not None and memory_bytes < LEAST_BYTES:
        raise DoctorError(f"memory: {memory_bytes} bytes are less than {LEAST_BYTES}; give more")
    names = [name for name, check in CHECKS.items() if check.quick or not quick]
    began, findings = time.monotonic(), dict[str, Finding]()

    def progress(line: str) -> None:
        for each in wrapped(f". {line}"):
            tell(each)

    with scratch(home) as place:
        until = began + LIMIT_SECONDS
        call = call_alone(place, until, TASK_SECONDS, progress)
        visit = Visit(used, place, memory_bytes, until, call, progress)
        for number, name in enumerate(names, 1):
            tell(f"[{number}/{len(names)}] {name}: {CHECKS[name].doing} ...")
            begun = time.monotonic()
            findings[name] = found_by(CHECKS[name], visit)
            for line in said(findings[name], time.monotonic() - begun):
                tell(line)
    words, seconds = verdict(findings, quick=quick), time.monotonic() - began
    facts = facts_of(visit, findings, quick=quick, seconds=seconds, words=words)
    write(file, facts, bars_of(visit, facts["made"]))
    tell("")
    tell(words)
    tell(f"figures: {file}")
    return Report(is_good(findings), words, findings, file)


def checked(output: str | Path | None, home: Path) -> Path:
    """The file to write, once it is known that it can be.

    Raises:
        DoctorError: If it cannot, or what was given cannot be used.
    """
    if home.exists() and not home.is_dir():
        raise DoctorError(f"folder: {home} is a file; name a folder for scratch")
    file = usual_file() if output is None else Path(output)
    if file.is_dir():
        raise DoctorError(f"output: {file} is a folder; name a file in it")
    if output is not None and file.exists():
        try:
            read(file)
        except DoctorError as error:
            raise DoctorError(f"output: would overwrite what is there; {error}") from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=file.parent).close()
    except OSError as error:
        raise DoctorError(
            f"output: {file.parent} cannot be written: {error.strerror}; name another file"
        ) from None
    return file
