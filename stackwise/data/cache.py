"""The folder where prepared data is kept, and how a folder appears in it whole or not at all.

Everything in it can be made again from the source, so it may be deleted at any time. Names are
hashes of what a folder was made from; nothing in it is ever changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xxhash import xxh3_128

from stackwise.atomic import flush, flush_all
from stackwise.data.errors import DataError
from stackwise.drafts import drafted
from stackwise.jsontext import parsed
from stackwise.seals import opened, sealed

VARIABLE = "STACKWISE_CACHE"
MANIFEST = "manifest.json"
MAKING = ".making-"
PIECE_BYTES = 8 << 20
UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO}
_hashes: dict[tuple[Path, int, int, int], str] = {}


def cache_folder() -> Path:
    """`$STACKWISE_CACHE`, or else the place that the platform sets aside for caches."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "stackwise"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "stackwise" / "cache"
    chosen = os.environ.get("XDG_CACHE_HOME")
    return (Path(chosen) if chosen else Path.home() / ".cache") / "stackwise"


def key_of(*parts: Any) -> str:
    """64 hex digits that name what the parts describe; parts are anything JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def draft(cache: Path, kind: str) -> Iterator[Path]:
    """A new folder to fill beside the finished ones; `publish` moves it, otherwise it goes away.

    Raises:
        DataError: If the cache cannot be written to.
    """
    try:
        (cache / kind).mkdir(parents=True, exist_ok=True)
        with drafted(cache / kind, MAKING) as path:
            yield path
    except OSError as error:
        if error.errno not in UNWRITABLE and not isinstance(
            error, FileExistsError | NotADirectoryError
        ):
            raise
        raise DataError(
            f"{cache}: prepared data cannot be written there: {error.strerror}; "
            f"set {VARIABLE} to a folder with room"
        ) from error


def publish(made: Path, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Move a filled draft to its name in one step, with `facts` in its manifest.

    Of two processes that make the same, the first wins and the other's copy is dropped.

    Returns:
        The facts of the folder that stands there now.
    """
    files = sorted(made.iterdir())
    sizes = {file.name: file.stat().st_size for file in files}
    hashes = {file.name: hash_of(file) for file in files}
    told = sealed({"sizes": sizes, "xxh3": hashes, "facts": dict(facts)})
    (made / MANIFEST).write_text(json.dumps(told, indent=1), "utf-8")
    flush_all(made)
    if folder.exists() and facts_of(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)  # cut short by a crash, or damaged since
    try:
        made.rename(folder)
        flush(folder.parent)
    except OSError:
        if facts_of(folder) is None:
            raise
    found = facts_of(folder)
    assert found is not None
    return found


def facts_of(folder: Path) -> dict[str, Any] | None:
    """The facts that `publish` wrote; None if the folder is not there or not what was written.

    Every file is read once in a process, to compare its hash; folders of older versions have none,
    and their sizes must do.
    """
    try:
        manifest = opened(parsed((folder / MANIFEST).read_text("utf-8")))
        sizes, hashes = manifest["sizes"], manifest.get("xxh3", {})
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
        whole = whole and all(hash_of(folder / name) == value for name, value in hashes.items())
        facts: dict[str, Any] = dict(manifest["facts"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return facts if whole else None


def hash_of(path: Path) -> str:
    """XXH3 of a file; it is not read again while it stays as it is."""
    told = path.stat()
    known = path.absolute(), told.st_ino, told.st_size, told.st_mtime_ns
    if known not in _hashes:
        digest = xxh3_128()
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                digest.update(piece)
        _hashes[known] = digest.hexdigest()
    return _hashes[known]
