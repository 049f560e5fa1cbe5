"""The lines of events: how one is written and read, and how it tells that it is what was written.

Each ends with the CRC-32 of all before it; those of older runs have none. NaN and the infinities
are written as strings and read back as numbers (`stackwise/jsontext.py`).
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any, BinaryIO

from stackwise.bounded import OddFile
from stackwise.jsontext import dumps, loads

Event = dict[str, Any]
DAMAGED = "damaged_line"
CRC, CRC_END = ', "crc": "', '"}'
SEAL_BYTES = len(CRC) + 8 + len(CRC_END)
SEAL_FORM = {n: byte for n, byte in enumerate(f"{CRC}????????{CRC_END}".encode()) if byte != 63}
_TEXT, _SEAL = itemgetter(slice(None, -SEAL_BYTES)), itemgetter(slice(-SEAL_BYTES, None))
PIECE_BYTES = 1 << 20
MOST_BYTES = 1 << 30  # of the file; a million looks at 80 blocks take less
LONGEST = 16 << 20  # bytes of a line; a look at 1000 blocks takes a hundredth


def written_line(event: Event) -> str:
    """An event as a line, with the CRC-32 of what stands before it."""
    text = dumps(event)[:-1]
    return f"{text}{CRC}{zlib.crc32(text.encode()):08x}{CRC_END}\n"


def read_line(line: bytes) -> Event | None:
    """The event of a line, without its end; None if it is damaged."""
    try:
        found = loads(line.decode("utf-8", errors="replace")) if are_whole([line]) else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return None
    found.pop("crc", None)
    return found


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


def lines_with(text: bytes, words: Iterable[bytes]) -> list[bytes]:
    """The whole lines of a text that hold one of the words, in their order, without their ends."""
    places = set[tuple[int, int]]()
    for word in words:
        at = text.find(word)
        while at >= 0 and (end := text.find(b"\n", at)) >= 0:
            places.add((text.rfind(b"\n", 0, at) + 1, end))
            at = text.find(word, end)
    return [text[begin:end] for begin, end in sorted(places)]


def parsed(lines: Sequence[bytes]) -> list[Event]:
    """The events of whole lines, without their ends."""
    with collected_later():
        return _all_at_once(lines) or [_event(line) for line in lines]


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
    if not are_whole(lines):
        return []
    for event in found:
        event.pop("crc", None)
    for place, line in enumerate(lines):
        if b'"NaN"' in line or b'Infinity"' in line:
            found[place] = read_line(line)
    return found


def _event(line: bytes) -> Event:
    text = line[:200].decode("utf-8", errors="replace")
    found = read_line(line)
    return {"kind": DAMAGED, "text": text} if found is None else found


def are_whole(lines: Sequence[bytes], *, sealed: bool = False) -> bool:
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
