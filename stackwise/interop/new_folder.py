"""A folder that is there whole or not at all, and the room for it.

It is written under a temporary name beside its own, flushed, and renamed; on an error or Ctrl-C
nothing is left. The same for single files is in `stackwise/atomic.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackwise.atomic import PART, flush
from stackwise.drafts import claimed, remove_left
from stackwise.interop.errors import ModelError
from stackwise.report import bytes_text

SLACK_BYTES = 16 << 20  # headers, configuration, the file system's own


@contextmanager
def new_folder(target: Path, source: Path, need_bytes: int) -> Iterator[Path]:
    """A temporary folder that becomes `target` when the block ends well.

    Args:
        target: Not there yet, or an empty folder.
        source: What is read meanwhile; the target may not lie in it.
        need_bytes: What will be written.

    Raises:
        ModelError: If the target is there or lies in the source, or the disk is too full.
        OSError: If it cannot be written; nothing is left behind.
    """
    check_target(target, source)
    check_room(target, need_bytes)
    part = target.parent / f".{target.name}{PART}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_left(part)
        part.mkdir()
    except FileExistsError:
        raise ModelError(
            f"{part}: is there already, of another process that writes {target}; wait for it, or "
            "remove it"
        ) from None
    except OSError as error:
        raise unwritable(target, error) from error
    try:
        with claimed(part):
            yield part
            flush(part)
            if target.is_dir():
                target.rmdir()
            os.rename(part, target)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise unwritable(target, error) from error
        raise
    flush(target.parent)


def unwritable(target: Path, error: OSError) -> OSError:
    """The error of the system, with what it was about and what is left of it."""
    why = os.strerror(error.errno) if error.errno is not None else str(error)
    return OSError(
        error.errno,
        f"{target}: cannot be written: {why}; nothing was left behind. Make room, or name a folder "
        "that can be written",
    )


def check_target(target: Path, source: Path) -> None:
    """Refuse a target that something would be lost or mixed in."""
    if not target.name:
        raise ModelError(f"{target}: cannot be a new folder's name; name one that is not there")
    if target.resolve().is_relative_to(source.resolve()):
        raise ModelError(f"{target}: lies in {source}, which is read; name a folder elsewhere")
    if target.is_dir() and any(target.iterdir()):
        raise ModelError(f"{target}: is there and not empty; name another folder, or remove it")
    if (target.exists() or target.is_symlink()) and not target.is_dir():
        raise ModelError(f"{target}: is there and no folder; name another, or remove it")


def check_room(target: Path, need_bytes: int) -> None:
    """Refuse what the disk has no room for, with some to spare."""
    there = next(place for place in target.resolve().parents if place.is_dir())
    free = shutil.disk_usage(there).free
    if need_bytes + SLACK_BYTES > free:
        raise ModelError(
            f"{target}: takes {bytes_text(need_bytes)}, with {bytes_text(SLACK_BYTES)} left to "
            f"the file system, and {there} has {bytes_text(free)} free; "
            "make room, or name a folder on another disk"
        )
