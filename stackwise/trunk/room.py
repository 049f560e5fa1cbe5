"""What room a cache of trunk outputs takes on disk, and how it is given back.

What lies in the folder is in `shards.py`; whether the room is there is asked in
`training/placing.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

from stackwise.atomic import PART
from stackwise.trunk.shards import MANIFEST, Layout, is_manifest

GOING = ".stackwise-cache-going"  # in a cache that is being removed
HEAD_BYTES = 2048  # of a manifest without its shards; the longest key, escaped, included
ENTRY_BYTES = 160
ROWS = r"rows-\d{6,}\.bin"
OURS = re.compile(rf"{re.escape(MANIFEST)}|{ROWS}|\.({ROWS}|{re.escape(MANIFEST)})\.[\d-]+{PART}")


def bytes_needed(layout: Layout) -> int:
    """Bytes on disk of a cache: its shards exactly, and a bound of its manifest and the next one.

    Source: `tests/unit/trunk/test_a_cache_says_what_room_it_takes.py` holds both.
    """
    manifest = HEAD_BYTES + ENTRY_BYTES * layout.shards
    return layout.rows * layout.row_bytes + 2 * manifest


def bytes_held(folder: Path) -> int:
    """Bytes that a cache takes there now."""
    return sum(path.stat().st_size for path in _ours(folder))


def is_cache(folder: Path) -> bool:
    """Whether a folder is a cache, whole, damaged or half removed.

    A placement may come from a stranger and name any folder: one without a manifest that can be
    read has to hold rows, and nothing else.
    """
    if folder.is_symlink() or not folder.is_dir():
        return False
    if (folder / GOING).exists() or is_manifest(folder):
        return True
    names = [path.name for path in folder.iterdir()]
    return any(name != MANIFEST for name in names) and all(map(OURS.fullmatch, names))


def remove(folder: Path) -> None:
    """Remove a cache: its own files only, and the folder if nothing else is in it."""
    if not is_cache(folder):
        return
    (folder / GOING).touch()
    (folder / MANIFEST).unlink(missing_ok=True)  # first: what is left half is no cache
    for path in [*_ours(folder), folder / GOING]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _ours(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return [path for path in files if OURS.fullmatch(path.name)]
