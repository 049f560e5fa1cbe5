"""Events: what happened in a run, for people; one JSON object per line, only ever appended.

    {"seq": 7, "time": "2026-01-31T12:00:00.000+00:00", "attempt": 2, "kind": "eval", "loss": 1.5,
     "crc": "1c291ca3"}

Each line is written in one piece and handed to the kernel at once, and ends with the CRC-32 of all
before it; those of older runs have none. A line that a crash cut is dropped when the next attempt
begins; until then readers skip it. NaN and the infinities are written as strings and read back as
numbers (`stackwise/jsontext.py`).
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stackwise.atomic import append
from stackwise.jsontext import dumps, loads

Event = dict[str, Any]
OURS = ("seq", "time", "attempt", "kind", "crc")
DAMAGED = "damaged_line"
CRC, CRC_END = ', "crc": "', '"}'
CRC_WIDTH = len(CRC) + 8 + len(CRC_END)
PIECE_BYTES = 1 << 20


class EventLog:
    """Appends events; any thread may.

    Args:
        path: The file; made if it is not there.
        attempt: Number of the process that writes: 1, 2, ...
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self.file = path.open("ab", buffering=0)
        self.count, self.end = whole_lines(path)
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
            line = written_line({**head, **fields})
            self.end = append(self.file, line.encode(), end=self.end)
            self.count += 1

    def settle(self) -> None:
        """Let no power cut take what was written."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file."""
        self.file.close()


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


def read_events(path: Path) -> list[Event]:
    """All events, oldest first.

    A last line without its end is left out; any other that cannot be read is an event of the kind
    `damaged_line` in its place.
    """
    if not path.exists():
        return []
    lines = path.read_text("utf-8", errors="replace").split("\n")[:-1]
    return _all_at_once(lines) or [_event(line) for line in lines]


def _all_at_once(lines: list[str]) -> list[Event]:
    """The same for undamaged lines, in two thirds of the time; nothing if there is a doubt."""
    try:
        found = loads(f"[{','.join(lines)}]")
    except ValueError:
        return []
    whole = len(found) == len(lines) and all(isinstance(event, dict) for event in found)
    if not whole or not all(map(_is_whole, lines)):
        return []
    for event in found:
        event.pop("crc", None)
    return found


def written_line(event: Event) -> str:
    """An event as a line, with the CRC-32 of what stands before it."""
    text = dumps(event)[:-1]
    return f"{text}{CRC}{zlib.crc32(text.encode()):08x}{CRC_END}\n"


def _is_whole(line: str) -> bool:
    """Whether a line is what was written, as far as it says."""
    tail = line[-CRC_WIDTH:]
    if not tail.startswith(CRC):
        return True
    return tail[len(CRC) : -len(CRC_END)] == f"{zlib.crc32(line[:-CRC_WIDTH].encode()):08x}"


def read_line(line: str) -> Event | None:
    """The event of a line; None if it is damaged."""
    try:
        found = loads(line) if _is_whole(line) else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return None
    found.pop("crc", None)
    return found


def _event(line: str) -> Event:
    found = read_line(line)
    return {"kind": DAMAGED, "text": line[:200]} if found is None else found


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
