"""Small files of a folder that may be a stranger's, read with a bound on their length.

A link in such a folder may lead anywhere, a pipe is never at its end, and a file may be as long as
a disk: none of them is read. What may lie in a folder that is written to is here, too.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 16 << 20  # of JSON; the plan of 126 stages of 405 billion parameters takes 2.5 MB
MOST_ENTRIES = 100_000
DEEPEST = 32  # folders in folders; ours are four


class OddFile(OSError):
    """A link, a pipe or a device in a folder that may be a stranger's, or too many files."""


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it is a link, a pipe or a device, or cannot be read.
        ValueError: If it is longer than that.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > most_bytes else file.read(most_bytes + 1)
    if max(size, len(content)) > most_bytes:
        raise ValueError(f"{path.name}: is over {most_bytes} bytes long")
    return content


def opened(path: Path) -> BinaryIO:
    """A file to read from its beginning; never a link, nor what is none.

    Raises:
        FileNotFoundError: If there is none.
        OSError: If it is a link, a pipe or a device, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number), str(path))
    return open(handle, "rb")


def read_text(path: Path, most_bytes: int = MOST_BYTES) -> str:
    """The same as UTF-8 text.

    Raises:
        OSError, ValueError: As `read_bytes`, or if it is not UTF-8.
    """
    return read_bytes(path, most_bytes).decode("utf-8")


def is_plain_file(path: Path) -> bool:
    """Whether it is a file, and no link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def check_no_links(folder: Path) -> None:
    """Refuse a folder that is about to be written to, or packed, if something in it leads away.

    The folder itself may be a link: whoever works with it has named it.

    Raises:
        OddFile: If a link, a pipe or a device lies in it, at any depth, or too much to look at.
    """
    for number, entry in enumerate(_entries(folder)):
        what = odd(entry)
        if what is not None:
            inside = os.path.relpath(entry.path, folder)
            raise OddFile(
                errno.ELOOP,
                f"{inside}: is {what}, which could lead out of the run's folder; remove it",
                folder.name,
            )
        if number >= MOST_ENTRIES:
            raise OddFile(errno.EFBIG, f"holds over {MOST_ENTRIES} files", folder.name)


def check_depth(folder: Path) -> None:
    """Refuse a folder that is about to be removed, if it is nested deeper than Python can go.

    Raises:
        OddFile: If it is.
    """
    for _ in _entries(folder):
        pass


def odd(entry: os.DirEntry[str]) -> str | None:
    """What an entry of a folder is, if neither a file nor a folder."""
    if entry.is_symlink():
        return "a link"
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return None
    return None if not os.path.lexists(entry.path) else "a pipe, a socket or a device"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder, at any depth; no link is followed, and what goes meanwhile is not.

    Raises:
        OddFile: If folders lie in each other deeper than any of a run.
    """
    waiting = [(str(folder), 0)]
    while waiting:
        place, depth = waiting.pop()
        if depth > DEEPEST:
            inside = os.path.relpath(place, folder).split(os.sep)[0]
            why = f"{inside}: holds folders over {DEEPEST} deep; remove it with rm -r"
            raise OddFile(errno.ELOOP, why, folder.name)
        try:
            with os.scandir(place) as found:
                for entry in found:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except FileNotFoundError:
            continue
