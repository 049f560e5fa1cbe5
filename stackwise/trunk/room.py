"""What room a cache of trunk outputs takes on disk: asked for before the run, given back after.

What lies in the folder is in `shards.py`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from stackwise.atomic import PART
from stackwise.errors import ExperimentError
from stackwise.report import bytes_text
from stackwise.trunk.shards import MANIFEST, Layout

HEAD_BYTES = 2048  # of a manifest without its shards; the longest key, escaped, included
ENTRY_BYTES = 160
ROWS = r"rows-\d{6,}\.bin"
OURS = re.compile(rf"{re.escape(MANIFEST)}|{ROWS}|\.({ROWS}|{re.escape(MANIFEST)})\.[\d-]+{PART}")


def bytes_needed(layout: Layout) -> int:
    """Bytes on disk of a cache: its shards exactly, and a bound of its manifest and the next one.

    Source: `tests/unit/trunk/test_a_cache_asks_for_room_first.py` holds both.
    """
    manifest = HEAD_BYTES + ENTRY_BYTES * layout.shards
    return layout.rows * layout.row_bytes + 2 * manifest


def bytes_held(folder: Path) -> int:
    """Bytes that a cache takes there now."""
    return sum(path.stat().st_size for path in _ours(folder))


def check_space(
    folder: Path,
    need: int,
    budget: int | None = None,
    *,
    free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> None:
    """Refuse a cache that the disk or its budget has no room for; what is there already counts.

    Args:
        folder: Where it is to be; need not exist yet.
        need: Its bytes when it is whole.
        budget: The most that it may take; None: no bound but the disk.
        free: Bytes free where a folder lies.

    Raises:
        ExperimentError: If it has not.
    """
    ways = "lower data or draws, keep it in fp8, or give placement.trunk=recompute"
    if budget is not None and need > budget:
        raise ExperimentError(
            f"placement.trunk: the cache takes {bytes_text(need)}, over its budget of "
            f"{bytes_text(budget)}; {ways}"
        )
    place = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    left, room = need - bytes_held(folder), free(place)
    if left > room:
        raise ExperimentError(
            f"placement.trunk: the cache takes {bytes_text(left)} more, and the disk of "
            f"{folder.name} has {bytes_text(room)} free; make room, or {ways}"
        )


def remove(folder: Path) -> None:
    """Remove a cache: its own files only, and the folder if nothing else is in it."""
    (folder / MANIFEST).unlink(missing_ok=True)  # first: what is left half is no cache
    for path in _ours(folder):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _ours(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return [path for path in files if OURS.fullmatch(path.name)]
