"""Events: what happened in a run, for people; one JSON object per line, only ever appended.

    {"seq": 7, "time": "2026-01-31T12:00:00.000+00:00", "attempt": 2, "kind": "eval", "loss": 1.5,
     "crc": "1c291ca3"}

Each line ends with the CRC-32 of all before it; those of older runs have none. How they are written
is in `event_log.py`. A line that a crash cut is dropped when the next attempt begins; until then
readers skip it. NaN and the infinities are written as strings and read back as numbers
(`stackwise/jsontext.py`).
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from stackwise.bounded import OddFile, opened
from stackwise.jsontext import dumps, loads
from stackwise.versions import EVENTS, VersionError, run_version, since

Event = dict[str, Any]
DAMAGED = "damaged_line"
CRC, CRC_END = ', "crc": "', '"}'
SEAL_BYTES = len(CRC) + 8 + len(CRC_END)
SEAL_FORM = {n: byte for n, byte in enumerate(f"{CRC}????????{CRC_END}".encode()) if byte != 63}
_TEXT, _SEAL = itemgetter(slice(None, -SEAL_BYTES)), itemgetter(slice(-SEAL_BYTES, None))
PIECE_BYTES = 1 << 20
MOST_BYTES = 1 << 30  # of the file; a million looks at 80 blocks take less
LONGEST = 16 << 20  # bytes of a line; a look at 1000 blocks takes a hundredth


class Found(NamedTuple):
    """What a file of events holds.

    Attributes:
        events: Those that were asked for, oldest first.
        lines: How many lines end in it, of all kinds.
        damaged: How many of them are not what was written.
    """

    events: list[Event]
    lines: int
    damaged: int


def read_events(path: Path, kind: str | None = None) -> list[Event]:
    """All events, or those of one kind, oldest first.

    A last line without its end is left out; any other that is not what was written is an event of
    the kind `damaged_line` in its place.
    """
    return found_in(path, kind).events


def found_in(path: Path, kind: str | None = None) -> Found:
    """The same, with what else is known of its lines."""
    if not path.exists():
        return Found([], 0, 0)
    with opened(path) as file:
        text, lines = read_whole(file)
    if kind is None:
        chosen = parsed(lines)
        damaged = sum(event.get("kind") == DAMAGED for event in chosen)
    else:
        chosen, damaged = of_kinds(lines, (kind,), text)
    return Found(as_now(path.parent, chosen), len(lines), damaged)


def of_kinds(
    lines: Sequence[bytes], kinds: Collection[str], text: bytes | None = None
) -> tuple[list[Event], int]:
    """The events of some kinds, oldest first, and how many of the lines are damaged.

    Lines that do not hold a kind's name are not parsed, where all CRCs tell that they are whole.

    Args:
        lines: Whole lines, without their ends.
        kinds: At least one.
        text: The lines with their ends, if that is at hand.
    """
    damaged = 0
    if DAMAGED not in kinds and _are_whole(lines, sealed=True):
        words = [dumps(kind).encode() for kind in kinds]
        found = parsed(_lines_with(text or b"\n".join(lines), words))
    else:
        found = parsed(lines)
        damaged = sum(event.get("kind") == DAMAGED for event in found)
    return [event for event in found if event.get("kind") in kinds], damaged


def read_whole(file: BinaryIO) -> tuple[bytes | None, list[bytes]]:
    """All whole lines of a file, as text and one by one; a long file's only one by one.

    Raises:
        OSError: As `next_lines`.
    """
    if os.fstat(file.fileno()).st_size > LONGEST:
        return None, next_lines(file)[0]
    text = file.read(LONGEST)
    return text[: text.rfind(b"\n") + 1], text.split(b"\n")[:-1]


def next_lines(file: BinaryIO) -> tuple[list[bytes], int]:
    """The whole lines of a file from its present place on, without their ends.

    One that is longer than any event is empty, so that it is damaged and takes no memory.

    Returns:
        The lines, and the byte after the last of them.

    Raises:
        OSError: If the file is too long to be a run's.
    """
    check_length(file)
    found, rest, is_long = list[bytes](), b"", False
    end = place = file.tell()
    while piece := file.read(LONGEST):
        place += len(piece)
        first, *lines = piece.split(b"\n")
        rest += first
        if is_long or len(rest) > LONGEST:
            rest, is_long = b"", True
        if lines:
            last = lines.pop()
            found += [rest, *lines]
            rest, is_long, end = last, False, place - len(last)
    return found, end


def check_length(file: BinaryIO) -> None:
    """Raise unless a file of events can be a run's.

    Raises:
        OSError: If it is too long.
    """
    if os.fstat(file.fileno()).st_size > MOST_BYTES:
        why = f"is over {MOST_BYTES} bytes long, which events of a run never are; restore it"
        raise OddFile(errno.EFBIG, why, str(file.name))


def as_now(folder: Path, events: list[Event]) -> list[Event]:
    """Events of a run of an older version as this one writes them; those of a newer as they are."""
    if not EVENTS or not events:
        return events
    try:
        version = run_version(folder)
    except VersionError:
        return events
    return [since(EVENTS, event, version) for event in events]


def parsed(lines: Sequence[bytes]) -> list[Event]:
    """The events of whole lines, without their ends."""
    with collected_later():
        return _all_at_once(lines) or [_event(line) for line in lines]


def _lines_with(data: bytes, words: Iterable[bytes]) -> list[bytes]:
    """The lines that hold one of the words, in their order."""
    places = set[tuple[int, int]]()
    for word in words:
        at = data.find(word)
        while at >= 0:
            end = data.find(b"\n", at)
            end = len(data) if end < 0 else end
            places.add((data.rfind(b"\n", 0, at) + 1, end))
            at = data.find(word, end)
    return [data[begin:end] for begin, end in sorted(places)]


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


def _all_at_once(lines: Sequence[bytes]) -> list[Event]:
    """The same for undamaged lines, in two thirds of the time; nothing if there is a doubt."""
    try:
        found = json.loads(f"[{b','.join(lines).decode('utf-8', errors='replace')}]")
    except (ValueError, RecursionError):
        return []
    if len(found) != len(lines) or not all(isinstance(event, dict) for event in found):
        return []
    if not _are_whole(lines):
        return []
    for event in found:
        event.pop("crc", None)
    for place, line in enumerate(lines):
        if b'"NaN"' in line or b'Infinity"' in line:
            found[place] = read_line(line)
    return found


def written_line(event: Event) -> str:
    """An event as a line, with the CRC-32 of what stands before it."""
    text = dumps(event)[:-1]
    return f"{text}{CRC}{zlib.crc32(text.encode()):08x}{CRC_END}\n"


def read_line(line: bytes) -> Event | None:
    """The event of a line, without its end; None if it is damaged."""
    try:
        found = loads(line.decode("utf-8", errors="replace")) if _are_whole([line]) else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return None
    found.pop("crc", None)
    return found


def _event(line: bytes) -> Event:
    text = line[:200].decode("utf-8", errors="replace")
    found = read_line(line)
    return {"kind": DAMAGED, "text": text} if found is None else found


def _are_whole(lines: Sequence[bytes], *, sealed: bool = False) -> bool:
    """Whether lines are what was written, as far as they say; of many at once, in C.

    Args:
        lines: Without their ends.
        sealed: Whether each has to say what its CRC is; those of older runs do not.
    """
    seals = _seals_of(lines)
    if seals is None and not sealed:
        differ = list(map(_differs, lines))
        if 1 in differ:
            return False  # the damage is in what would say so
        lines = [line for line, count in zip(lines, differ, strict=True) if not count]
        seals = _seals_of(lines)
    if seals is None:
        return False
    found = array("I", map(zlib.crc32, map(_TEXT, lines)))
    if sys.byteorder == "little":
        found.byteswap()
    digits = found.tobytes().hex().encode()
    return all(digits[n::8] == seals[len(CRC) + n :: SEAL_BYTES] for n in range(8))


def _seals_of(lines: Sequence[bytes]) -> bytes | None:
    """The ends of lines with their CRCs, one after the other; None if one has none."""
    seals = b"".join(map(_SEAL, lines))
    same = len(seals) == SEAL_BYTES * len(lines) and all(
        seals[n::SEAL_BYTES].count(byte) == len(lines) for n, byte in SEAL_FORM.items()
    )
    return seals if same else None


def _differs(line: bytes) -> int:
    """In how many of its bytes the end of a line is not the form of a CRC; its digits are any."""
    end = line[-SEAL_BYTES:].rjust(SEAL_BYTES)
    return sum(end[n] != byte for n, byte in SEAL_FORM.items())


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
