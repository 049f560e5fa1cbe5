"""Whether a run whose process cannot be asked for is alive: by the time of its heartbeat.

The process that trains rewrites status.json every second (`writer.py`). How old that is would be
easily told if clocks could be trusted; they jump, and two machines have two. So:

- several clocks are asked, and a run is silent only if it is by every one of them;
- who looks again and again goes by changes, and asks no clock of the day at all;
- who is about to take a run over from a process elsewhere asks the clock of the folder's own disk,
  and then watches for a while whether anything moves.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATUS = "status.json"
STALE_SECONDS = 60.0  # after which nobody is there any more
WATCH_SECONDS, LOOK_SECONDS = 5.0, 0.05  # of beats that come every second
# Folder: the file that was seen, and when it was new.
_seen: dict[str, tuple[tuple[int, int], float | None]] = {}


def now_facts(boot: str) -> dict[str, Any]:
    """What a heartbeat says of the time: by the clock of the day, and by that since the boot."""
    return {"heartbeat": time.time(), "uptime": time.monotonic(), "boot": boot}


def silent_seconds(status: Mapping[str, Any], folder: Path, boot: str) -> float:
    """Seconds since the last heartbeat, by the clock that says least; NaN if there was none.

    Args:
        status: What status.json says.
        folder: The run's.
        boot: This machine's.
    """
    if not isinstance(status.get("heartbeat"), float):
        return math.nan
    ages = [time.time() - status["heartbeat"]]
    if isinstance(status.get("uptime"), float) and status.get("boot") == boot:
        ages.append(time.monotonic() - status["uptime"])
    beat = _last(folder)
    if beat is not None:
        ages.append(time.time() - beat.st_mtime)
        moved = _moved_seconds(folder, beat)
        ages += [] if moved is None else [moved]
    return min((age for age in ages if age >= 0), default=0.0)


def beats(folder: Path) -> bool:
    """Whether the heartbeat of a run is fresh, for a reader.

    At first by the clock of the day; who has seen another file in its place goes by that.
    """
    beat = _last(folder)
    if beat is None:
        return False
    moved = _moved_seconds(folder, beat)
    return (abs(time.time() - beat.st_mtime) if moved is None else moved) < STALE_SECONDS


def is_silent(folder: Path) -> bool:
    """Whether nothing was heard of a run for a minute, and nothing is while it is watched."""
    beat = _last(folder)
    if beat is None:
        return True
    if abs(_disk_seconds(folder) - beat.st_mtime) < STALE_SECONDS:
        return False
    until = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        now = _last(folder)
        if now is not None and _which(now) != _which(beat):
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _moved_seconds(folder: Path, beat: os.stat_result) -> float | None:
    """Seconds since this process saw a new file of the heartbeat; None where it has seen one."""
    key, file, now = str(folder), _which(beat), time.monotonic()
    before = _seen.get(key)
    if before is None or before[0] != file:
        before = _seen[key] = (file, None if before is None else now)
    return None if before[1] is None else now - before[1]


def _which(beat: os.stat_result) -> tuple[int, int]:
    """Tells a file from the one before it: disks give the same number again and again."""
    return beat.st_ino, beat.st_mtime_ns


def _last(folder: Path) -> os.stat_result | None:
    """The file that the last heartbeat wrote: a new one each time."""
    try:
        return (folder / STATUS).stat()
    except OSError:
        return None


def _disk_seconds(folder: Path) -> float:
    """The time by the clock of the disk that holds a folder, which may be another machine's."""
    try:
        handle, name = tempfile.mkstemp(prefix=".clock-", suffix=".part", dir=folder)
    except OSError:
        return time.time()
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        os.unlink(name)
