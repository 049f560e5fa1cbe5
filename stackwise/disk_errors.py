"""What the disk refuses, said so that it helps: what, where, what is intact, what to do.

Files are written in `atomic.py`. What is read and found damaged is no error of the disk: see
`training/manifest.py`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stackwise.atomic import DRAFT
from stackwise.bounded import OddFile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class DiskError(OSError):
    """The disk is full, fails, or may not be written; the message is whole as it is."""

    def __str__(self) -> str:
        return str(self.strerror)


def refused(error: OSError, what: str, intact: str) -> DiskError:
    """An error of the disk as people read it.

    Args:
        error: What was raised.
        what: What could not be done: `rack: the checkpoint cannot be written`.
        intact: What is not lost: `the last whole one is intact`.
    """
    number = error.errno or errno.EIO
    if number in FULL:
        way_out = "Make room"
    elif number in CLOSED:
        way_out = "Make the folder writable"
    else:
        way_out = "Look after the disk, or copy the run to another one"
    return DiskError(number, f"{what}: {error.strerror}; {intact}. {way_out}, and resume the run")


def told(error: Exception) -> str:
    """An error as a command says it: of a disk that refuses, with the way out."""
    if not isinstance(error, OSError) or error.filename is None or error.filename2 is not None:
        return str(error)
    if error.errno not in (*FULL, *CLOSED):
        return str(error)
    path = Path(str(error.filename))
    name = DRAFT.sub(r"\1", path.name)
    way_out = "make room" if error.errno in FULL else "let it be read and written, or use a copy"
    return f"{path.with_name(name) if name else path}: {error.strerror}; {way_out}"


NOT_OF_DISK = (
    DiskError, OddFile, ConnectionError, ChildProcessError, ProcessLookupError, TimeoutError,
)  # fmt: skip


@contextmanager
def disk_named(what: str, intact: str) -> Iterator[None]:
    """Say what could not be done, of errors that do not say it yet."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        raise refused(error, what, intact) from error


@contextmanager
def faults_of(run: Path) -> Iterator[None]:
    """Name the file of a run that could not be read or written while it was carried out."""
    try:
        yield
    except NOT_OF_DISK:
        raise
    except OSError as error:
        if error.errno in (None, errno.ENOMEM):  # raised by hand with a text of its own; memory
            raise
        path = Path(str(error.filename)) if error.filename is not None else run
        inside = path.is_relative_to(run)
        where = str(path.relative_to(run)) if inside and path != run else path.name
        where = DRAFT.sub(r"\1", where)
        what = f"run {run.resolve().name}: {where} cannot be read or written"
        raise refused(error, what, "its last checkpoint is intact") from error
