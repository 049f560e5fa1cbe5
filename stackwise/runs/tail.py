"""The last event of a kind, read from the end of the file.

A run of 80 layers that was looked at often has megabytes of events, and what it came to stands in
the last lines of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from stackwise.bounded import opened
from stackwise.runs.event_lines import Event, read_line
from stackwise.runs.events import as_now, read_events

TAIL_BYTES = 1 << 16


def last_event(path: Path, kind: str, *, whole: bool = False) -> Event | None:
    """The last event of a kind; None if there is none, or the file is not there.

    Args:
        path: events.jsonl.
        kind: As in `{"kind": "result"}`.
        whole: Whether to read all of the file where its last 64 KiB hold none. Without, an event
            that lies further back is not found.

    Raises:
        OSError: If the file is there and cannot be read.
    """
    try:
        with opened(path) as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return None
    # The first piece is a whole line only at the start, the last one, if it is not empty, was cut.
    lines = data.split(b"\n")[1 if start else 0 : -1]
    found = next(filter(None, (_if_kind(line, kind) for line in reversed(lines))), None)
    if found is not None or not (start and whole):
        return None if found is None else as_now(path.parent, [found])[0]
    events = read_events(path, kind)
    return events[-1] if events else None


def _if_kind(line: bytes, kind: str) -> Event | None:
    """The event of a line; None if it is of another kind, or damaged."""
    if f'"{kind}"'.encode() not in line:
        return None
    event = read_line(line)
    return event if event is not None and event.get("kind") == kind else None
