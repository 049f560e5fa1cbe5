"""Events as they are written: each line in one piece, handed to the kernel at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from stackwise.atomic import append
from stackwise.runs import status
from stackwise.runs.event_lines import PIECE_BYTES, check_length, read_line, written_line

OURS = ("seq", "time", "attempt", "kind", "crc")


class EventLog:
    """Appends events; any thread may.

    Args:
        path: The file; made if it is not there.
        attempt: Number of the process that writes: 1, 2, ...

    Attributes:
        damaged: Lines at the end that were not what had been written; the first new one replaces
            them.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self.path, self.file = path, FileIO(path, "a+b", opener=plainly)
        lines, end = lines_in(path)
        self.damaged, self.end = damaged_tail(path, end)
        self.count = lines - self.damaged
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


def plainly(path: str, flags: int) -> int:
    """Open a file, but through no link, which may lead anywhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def lines_in(path: Path) -> tuple[int, int]:
    """How many lines end in the file, and the byte after the last of them.

    Raises:
        OSError: If it cannot be read, or is too long to be a run's.
    """
    count = end = place = 0
    with path.open("rb") as file:
        check_length(file)
        while piece := file.read(PIECE_BYTES):
            count += piece.count(b"\n")
            last = piece.rfind(b"\n")
            end = place + last + 1 if last >= 0 else end
            place += len(piece)
    return count, end


def damaged_tail(path: Path, end: int) -> tuple[int, int]:
    """How many lines at the end of a file are not what was written, and where they begin.

    A power cut leaves such: what was not flushed may be there in length only. New lines go over
    them.
    """
    start = max(0, end - PIECE_BYTES)
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read(end - start).split(b"\n")[:-1]
    count = 0
    for line in reversed(lines[1:] if start else lines):
        if read_line(line) is not None:
            break
        count, end = count + 1, end - len(line) - 1
    return count, end
