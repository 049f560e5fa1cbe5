"""What a run's folder takes on disk, as the disk counts it: in blocks, each file once.

A file with two names, as the end of a stage has, is counted under the first of `FOLDERS`. What a
fork has under second names of its own counts for both; `bytes_of` of both together counts it once.
Links are not followed. What was predicted is in plan.json (`memory/disk_rows.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackwise.runs.records import Records

FOLDERS = ("rack", "state", "best", "earlier", "bests", "stages", "cache", "metrics")
RECORDS = "records"
BLOCK_BYTES = 512  # of `st_blocks`, whatever the disk's own are


def disk_of(run: Records) -> dict[str, Any]:
    """As `Run.disk` says; a folder that cannot be read takes nothing."""
    seen: set[tuple[int, int]] = set()
    by = {name: sum(blocks(run.path / name, seen)) for name in FOLDERS}
    by[RECORDS] = sum(blocks(run.path, seen))
    by = {name: count for name, count in by.items() if count}
    return {"bytes": sum(by.values()), "by": by, "predicted_bytes": predicted(run)}


def bytes_of(runs: Iterable[Records]) -> int:
    """What some runs take together."""
    seen: set[tuple[int, int]] = set()
    return sum(sum(blocks(run.path, seen)) for run in runs)


def blocks(folder: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """Bytes of each file under a folder that has not been seen, which it is from then on."""
    waiting = [str(folder)]  # and no recursion: a stranger's may be nested without end
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                stat = entry.stat(follow_symlinks=False)
            except OSError:  # it has just gone
                continue
            if (stat.st_dev, stat.st_ino) not in seen:
                seen.add((stat.st_dev, stat.st_ino))
                yield stat.st_blocks * BLOCK_BYTES


def predicted(run: Records) -> int | None:
    """The most that checkpoints and caches were predicted to take; None where it is not said."""
    try:
        rows = [row["disk"] for row in run.plan()]
        return max(int(row["checkpoints"]) + int(row["caches"]) for row in rows)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return None
