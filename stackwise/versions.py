"""What older versions of StackWise wrote, read as this one writes it.

Each kind of file has a version of its own, and steps from one version to the next: pure functions
of what was read. A file stays as it is on disk until it is written anyway. What a newer version
wrote is refused, since nobody here knows what it means.

Change the meaning of a file: raise `now` of its kind by one, and put the step from the version
before into `steps`, beside a test with what that version wrote (`tests/releases/`). A key that is
only added needs neither: it has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackwise.jsontext import read_mapping

Values = dict[str, Any]
Step = Callable[[Values], Values]


class VersionError(ValueError):
    """What is newer than this version of StackWise, or too old for it."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is, for people.
        key: Under which it says its version; where it says none, that is 1.
        now: The version that is written.
        steps: From a version to the next.
    """

    name: str
    key: str
    now: int = 1
    steps: dict[int, Step] = field(default_factory=dict)


def unsealed(manifest: Values) -> Values:
    """A manifest of before 2026-11-26, which held no hash of itself and not which run it is of."""
    parts = {
        name: {"dtype": "float32", "stage": None, "format": None, **entry}
        for name, entry in manifest["parts"].items()
    }
    return {**manifest, "parts": parts, "run": None}


EXPERIMENT = Kind("experiment", "schema_version")
PLACEMENT = Kind("placement", "schema_version")
STUDY = Kind("study", "schema_version")
MANIFEST = Kind("manifest", "format", steps={0: unsealed})
RUN = Kind("run", "schema_version")  # in provenance.json, for all else that its folder holds:
STAGES: dict[int, Step] = {}  # each stage from one version of a run to the next; none: it stays
EVENTS: dict[int, Step] = {}  # each event, whose kind stays


def version_of(kind: Kind, values: Mapping[str, Any]) -> int:
    """Which version wrote it.

    Raises:
        VersionError: If what it says is no version, or one that this StackWise does not know yet.
    """
    from stackwise import __version__

    said = values.get(kind.key, 1)
    if isinstance(said, bool) or not isinstance(said, int) or said < 0:
        raise VersionError(
            f"{kind.key}: {said!r:.40} is no version of StackWise's; this one reads {kind.now}"
        )
    if said > kind.now:
        raise VersionError(
            f"{kind.key}: {said} is of another version of StackWise, a newer one; this one, "
            f"{__version__}, reads {kind.now}; upgrade it: pip install --upgrade stackwise"
        )
    return said


def upgraded(kind: Kind, values: Mapping[str, Any], version: int | None = None) -> Values:
    """What an older version wrote, as this one writes it.

    Args:
        kind: Of which kind it is.
        values: What was read; it is not changed.
        version: Which version wrote it; None for the one that it says.

    Raises:
        VersionError: If it is newer, or so old that no step leads from there.
    """
    version = version_of(kind, values) if version is None else version
    found = dict(values)
    for number in range(version, kind.now):
        if number not in kind.steps:
            raise VersionError(
                f"{kind.key}: {number} is older than what this StackWise reads, {kind.now}; open "
                "it with the version in provenance.json"
            )
        found = kind.steps[number](found)
        if kind.key in values:
            found[kind.key] = number + 1
    return found


def since(steps: Mapping[int, Step], values: Values, version: int) -> Values:
    """A stage or an event of a run of an older version, as this one writes it.

    Args:
        steps: `STAGES` or `EVENTS`.
        values: What was read.
        version: The run's.
    """
    for number in range(version, RUN.now):
        values = steps[number](dict(values)) if number in steps else values
    return values


def run_version(folder: Path) -> int:
    """Which version wrote a run's folder.

    Raises:
        VersionError: If it is newer than this one.
    """
    return version_of(RUN, read_mapping(folder / "provenance.json"))
