"""Events: what happened in a run, for people; one JSON object per line, only ever appended.

    {"seq": 7, "time": "2026-01-31T12:00:00.000+00:00", "attempt": 2, "kind": "eval", "loss": 1.5}

Each line is written in one piece and handed to the kernel at once. A line that a crash cut is
dropped when the next attempt begins; until then readers skip it. NaN and the infinities are
written as strings and read back as numbers (`stackwise/jsontext.py`).
"""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackwise.atomic import append
from stackwise.bounded import opened
from stackwise.jsontext import dumps, loads
from stackwise.runs import status
from stackwise.versions import EVENTS, VersionError, run_version, since

Event = dict[str, Any]
OURS = ("seq", "time", "attempt", "kind")
PIECE_BYTES = 1 << 20


class EventLog:
    """Appends events; any thread may.

    Args:
        path: The file; made if it is not there.
        attempt: Number of the process that writes: 1, 2, ...
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self.file = path.open("ab", buffering=0)
        self.count, end = whole_lines(path)
        if end < path.stat().st_size:
            self.file.truncate(end)
        self.attempt = attempt
        self.guard = threading.Lock()

    def write(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Append one event.

        Raises:
            ValueError: If a field has the name of one that every event has.
            TypeError: If a field cannot be written as JSON.
            OSError: If the file cannot be written; it holds whole lines still.
        """
        taken = [name for name in fields if name in OURS]
        if taken:
            raise ValueError(f"event {kind!r}: the field {taken[0]!r} is filled in; rename yours")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self.guard:
            head = {"seq": self.count, "time": now, "attempt": self.attempt, "kind": kind}
            append(self.file, (dumps({**head, **fields}) + "\n").encode())
            self.count += 1

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def append_event(folder: Path, kind: str, **fields: Any) -> None:
    """Append one event to a run that nobody trains; its lock must be held.

    Raises:
        ValueError, TypeError, OSError: As `EventLog.write`.
    """
    attempt = status.read(folder).get("attempt")
    log = EventLog(folder / "events.jsonl", attempt if isinstance(attempt, int) else 1)
    try:
        log.write(kind, fields)
    finally:
        log.close()


def whole_lines(path: Path) -> tuple[int, int]:
    """How many lines end in the file, and the byte after the last of them."""
    count = end = place = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            count += piece.count(b"\n")
            last = piece.rfind(b"\n")
            end = place + last + 1 if last >= 0 else end
            place += len(piece)
    return count, end


DAMAGED = "damaged_line"


def read_events(path: Path, kind: str | None = None) -> list[Event]:
    """All events, or those of one kind, oldest first.

    A last line without its end is left out; any other that cannot be read is an event of the kind
    `damaged_line` in its place. Lines that do not hold the kind's name are not parsed.
    """
    if not path.exists():
        return []
    with opened(path) as file:
        data = file.read()
    if kind is None or kind == DAMAGED:
        found = parsed(data)
    else:
        found = parsed(_lines_with(data, dumps(kind).encode()))
    found = as_now(path.parent, found)
    return found if kind is None else [event for event in found if event.get("kind") == kind]


def as_now(folder: Path, events: list[Event]) -> list[Event]:
    """Events of a run of an older version as this one writes them; those of a newer as they are."""
    if not EVENTS or not events:
        return events
    try:
        version = run_version(folder)
    except VersionError:
        return events
    return [since(EVENTS, event, version) for event in events]


def parsed(data: bytes) -> list[Event]:
    """The events of whole lines; what comes after the last line's end is left out."""
    lines = data.decode("utf-8", errors="replace").split("\n")[:-1]
    with collected_later():
        return _all_at_once(lines) or [_event(line) for line in lines]


def _lines_with(data: bytes, word: bytes) -> bytes:
    """The whole lines that hold a word."""
    found, at = list[bytes](), data.find(word)
    while at >= 0 and (end := data.find(b"\n", at)) >= 0:
        found.append(data[data.rfind(b"\n", 0, at) + 1 : end + 1])
        at = data.find(word, end)
    return b"".join(found)


@contextmanager
def collected_later() -> Iterator[None]:
    """Let Python look for garbage after, not while, many small things are made: half the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _all_at_once(lines: list[str]) -> list[Event]:
    """The same for undamaged lines, in two thirds of the time; nothing if there is a doubt."""
    try:
        found = json.loads(f"[{','.join(lines)}]")
    except (ValueError, RecursionError):
        return []
    if len(found) != len(lines) or not all(isinstance(event, dict) for event in found):
        return []
    for place, line in enumerate(lines):
        if '"NaN"' in line or 'Infinity"' in line:
            found[place] = loads(line)
    return found


def _event(line: str) -> Event:
    try:
        found = loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"kind": DAMAGED, "text": line[:200]}


def counted_once(events: list[Event]) -> list[Event]:
    """Events with a `step`, without those of steps that a later attempt took again.

    An attempt that resumes wins from its first such event on.
    """
    events = [event for event in events if "step" in event and "attempt" in event]
    firsts: dict[int, int] = {}
    for event in events:
        firsts.setdefault(event["attempt"], event["step"])
    return [
        event
        for event in events
        if all(event["step"] < step for n, step in firsts.items() if n > event["attempt"])
    ]
