"""What has been removed of a finished run because it needs it no more: pruned.json.

It is written before anything goes, so that a run which was pruned half says so. What goes, and
when, is in `stackwise/pruning.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.jsontext import dumps
from stackwise.seals import read_sealed, sealed

PRUNED = "pruned.json"
KINDS = ("state", "earlier", "stages", "caches", "segments", "left-overs", "weights")


def read_pruned(folder: Path) -> dict[str, Any]:
    """What the file says; nothing if it is not there or damaged."""
    return read_sealed(folder / PRUNED)


def pruned_of(folder: Path) -> tuple[str, ...]:
    """The kinds of files that were removed of a run, of `KINDS`; none if it was not pruned."""
    found = read_pruned(folder).get("what")
    return tuple(kind for kind in KINDS if kind in found) if isinstance(found, list) else ()


def pruned_text(folder: Path) -> str:
    """What is said of a pruned run: when, and what went."""
    day = str(read_pruned(folder).get("time"))[:10]
    return f"was pruned on {day}: its {', '.join(pruned_of(folder))} went"


def write_pruned(folder: Path, what: set[str]) -> None:
    """Say that kinds of files go now, beside those that went before.

    Raises:
        OSError: If it cannot be written.
    """
    whole = [kind for kind in KINDS if kind in what or kind in pruned_of(folder)]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_text(folder / PRUNED, dumps(sealed({"time": now, "what": whole}), indent=1))
