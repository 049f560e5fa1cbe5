"""Events: what happened in a run, for people; one JSON object per line, only ever appended.

    {"seq": 7, "time": "2026-01-31T12:00:00.000+00:00", "attempt": 2, "kind": "eval", "loss": 1.5,
     "crc": "1c291ca3"}

What a line is stands in `event_lines.py`, how one is appended in `event_log.py`. A line that a
crash cut is dropped when the next attempt begins; until then readers skip it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from stackwise.bounded import opened
from stackwise.jsontext import dumps
from stackwise.runs.event_lines import DAMAGED, Event, are_whole, lines_with, parsed, read_whole
from stackwise.versions import EVENTS, VersionError, run_version, since


class Whole(NamedTuple):
    """A file each line of which was compared with its CRC, and is what was written.

    Attributes:
        stamp: Which file, and when: its device, inode, length and last change.
        lines: How many end in it.
    """

    stamp: tuple[int, int, int, int]
    lines: int


class Found(NamedTuple):
    """What a file of events holds.

    Attributes:
        events: Those that were asked for, oldest first.
        lines: How many lines end in it, of all kinds.
        damaged: How many of them are not what was written.
        whole: The file, if that is known of it.
    """

    events: list[Event]
    lines: int
    damaged: int
    whole: Whole | None = None


def read_events(path: Path, kind: str | None = None) -> list[Event]:
    """All events, or those of one kind, oldest first.

    A last line without its end is left out; any other that is not what was written is an event of
    the kind `damaged_line` in its place.
    """
    return found_in(path, kind).events


def found_in(path: Path, kind: str | None = None, known: Whole | None = None) -> Found:
    """The same, with what else is known of its lines.

    Args:
        path: The file.
        kind: Of the events that are wanted; None for all.
        known: As it was found before: while it is the same, only lines that hold the kind's name
            are compared again.
    """
    if not path.exists():
        return Found([], 0, 0)
    with opened(path) as file:
        stamp = stamp_of(file)
        if known is not None and known.stamp == stamp and kind is not None and kind != DAMAGED:
            chosen, damaged = named_in(file.read(stamp[2]), (kind,))
            return Found(as_now(path.parent, chosen), known.lines, damaged, known)
        text, lines = read_whole(file)
    if kind is None:
        chosen = parsed(lines)
        damaged, are_all = damaged_in(chosen), False
    else:
        chosen, damaged, are_all = of_kinds(lines, (kind,), text)
    whole = Whole(stamp, len(lines)) if are_all else None
    return Found(as_now(path.parent, chosen), len(lines), damaged, whole)


def of_kinds(
    lines: Sequence[bytes], kinds: Collection[str], text: bytes | None = None
) -> tuple[list[Event], int, bool]:
    """The events of some kinds, oldest first.

    Lines that do not hold a kind's name are not parsed, where all CRCs tell that they are whole.

    Args:
        lines: Whole lines, without their ends.
        kinds: At least one.
        text: The lines with their ends, if that is at hand.

    Returns:
        The events; how many of the lines are damaged; whether the CRCs told that none is.
    """
    if DAMAGED not in kinds and are_whole(lines, sealed=True):
        return *named_in(text or b"\n".join([*lines, b""]), kinds), True
    found = parsed(lines)
    return [event for event in found if event.get("kind") in kinds], damaged_in(found), False


def named_in(text: bytes, kinds: Collection[str]) -> tuple[list[Event], int]:
    """The same of a text, but for the last; only lines that hold a kind's name are looked at."""
    found = parsed(lines_with(text, [dumps(kind).encode() for kind in kinds]))
    return [event for event in found if event.get("kind") in kinds], damaged_in(found)


def damaged_in(events: Sequence[Event]) -> int:
    """How many of them stand for a damaged line."""
    return sum(event.get("kind") == DAMAGED for event in events)


def stamp_of(file: BinaryIO) -> tuple[int, int, int, int]:
    """What changes with a file: device, inode, bytes, and when it was last written."""
    facts = os.fstat(file.fileno())
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def as_now(folder: Path, events: list[Event]) -> list[Event]:
    """Events of a run of an older version as this one writes them; those of a newer as they are."""
    if not EVENTS or not events:
        return events
    try:
        version = run_version(folder)
    except VersionError:
        return events
    return [since(EVENTS, event, version) for event in events]


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
