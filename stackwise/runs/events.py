"""Events: what happened in a run, for people; one JSON object per line, only ever appended.

A line that was cut by a kill is dropped when the next attempt begins; until then readers skip it.
Numbers that JSON has no word for are written as the strings "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

Event = dict[str, Any]


class EventLog:
    """Appends events and flushes each of them."""

    def __init__(self, path: Path, attempt: int) -> None:
        drop_cut_line(path)
        self.attempt = attempt
        self.count = len(read_events(path))
        self.file: TextIO = path.open("a", encoding="utf-8")

    def write(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Append one event."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"seq": self.count, "time": now, "attempt": self.attempt, "kind": kind, **fields}
        self.file.write(json.dumps(plain(line), allow_nan=False) + "\n")
        self.file.flush()
        self.count += 1

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def plain(value: Any) -> Any:
    """`value` with non-finite numbers as strings."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def drop_cut_line(path: Path) -> None:
    """Cut the file after its last whole line."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def read_events(path: Path) -> list[Event]:
    """All events, oldest first; a last line that was cut is left out."""
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").split("\n")[:-1]
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            found.append({"kind": "damaged_line", "text": line[:200]})
    return found
