"""Drafts: what is made beside its place, and who may remove it once its maker is gone.

A draft's name begins with a dot. Its maker holds the kernel's lock on it, which falls as the maker
ends, however that comes about; so the next one that makes such a thing knows what a killed one
left, and removes it. Where a disk knows no locks, what is an hour old is taken for left. Small
files are in `atomic.py`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackwise.atomic import is_named

FORK, FETCH, DELETED = ".fork-", ".fetch-", ".deleted-"  # beside runs
BESIDE_RUNS = (FORK, FETCH, DELETED)
OLD_SECONDS = 3600.0


@contextmanager
def drafted(home: Path, prefix: str) -> Iterator[Path]:
    """A new folder in another one; gone when the block ends, unless it was moved away.

    What killed processes left of the same kind is removed first.

    Raises:
        OSError: If it cannot be made.
    """
    sweep(home, prefix)
    while True:
        try:
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(home)) from None
        try:
            handle = held(path)
            break
        except (BlockingIOError, FileNotFoundError):  # somebody sweeps it in this very moment
            continue
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        let_go(handle)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Inside, a file or folder is nobody's to sweep.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If it is not there.
    """
    handle = held(path)
    try:
        yield
    finally:
        let_go(handle)


def sweep(home: Path, *prefixes: str) -> None:
    """Remove what killed processes left of these kinds."""
    for path in named(home, prefixes):
        remove_left(path)


def left_in(home: Path, *prefixes: str) -> list[Path]:
    """What killed processes left of these kinds."""
    found = []
    for path in named(home, prefixes):
        try:
            handle = held(path)
        except OSError:
            continue
        if handle is not None or is_old(path):
            found.append(path)
        let_go(handle)
    return found


def remove_left(path: Path) -> None:
    """Remove a file or a folder, unless somebody holds it."""
    try:
        handle = held(path)
    except OSError:
        return
    try:
        if handle is None and not is_old(path):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        let_go(handle)


def named(home: Path, prefixes: tuple[str, ...]) -> list[Path]:
    """What in a folder has a name that begins so."""
    try:
        return [home / name for name in sorted(os.listdir(home)) if name.startswith(prefixes)]
    except OSError:
        return []


def held(path: Path) -> int | None:
    """A handle that holds the kernel's lock on a file or folder; None where there are no locks.

    Raises:
        BlockingIOError: If another process holds it.
        OSError: If it is not there, or a link.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_named(handle, path):
            return handle
        raise FileNotFoundError(path)  # it is another one's by now
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None


def let_go(handle: int | None) -> None:
    """Give a lock up."""
    if handle is not None:
        os.close(handle)


def is_old(path: Path) -> bool:
    """Whether nothing was made in it for an hour."""
    try:
        return time.time() - path.lstat().st_mtime > OLD_SECONDS
    except OSError:
        return False
