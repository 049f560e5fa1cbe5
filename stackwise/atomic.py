"""Files that are either the old or the new one, never half of both.

To replace a file: write beside it, flush to the disk, rename over it, flush the folder's entry.
To append to one: all of the new bytes, or none of them.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from stackwise.pulse import beat

PIECE_BYTES = 1 << 20
PART = ".part"
DRAFT = re.compile(r"\.(.+)\.\d+-\d+\.part")  # as `replacing` calls it
_numbers = itertools.count()


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends well.

    Args:
        path: The target.
        durable: Flush to the disk before and after renaming; needed for what must outlive a
            power cut.

    Raises:
        OSError: If it cannot be written; the target is as it was, the temporary file is gone.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}-{next(_numbers)}{PART}")
    try:
        yield part
        if durable:
            flush(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        flush(path.parent)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Replace a file's text in one step."""
    with replacing(path, durable=durable) as part:
        part.write_text(text, encoding="utf-8")


def write_next(folder: Path, text: str, digits: int) -> Path:
    """Write text into the folder as the next of its numbered files, `0003.json` after `0002.json`.

    It appears whole, and of many who write at once each gets a number of its own.

    Args:
        folder: Where; made if it is not there.
        text: What.
        digits: Of the number, at least.

    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{os.getpid()}-{next(_numbers)}{PART}"
    part.write_text(text, encoding="utf-8")
    try:
        number = max(numbers_in(folder), default=0) + 1
        while True:
            path = folder / f"{number:0{digits}d}.json"
            try:
                os.link(part, path)
                return path
            except FileExistsError:
                number += 1
    finally:
        part.unlink(missing_ok=True)


def numbers_in(folder: Path) -> list[int]:
    """The numbers of the files that `write_next` wrote, in no order; none without the folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]


def append(file: FileIO, data: bytes | memoryview, *, end: int | None = None) -> int:
    """Write all of `data` at the end of an unbuffered file, or leave the file as it was.

    Args:
        file: The file.
        data: What.
        end: Where the last whole piece ends: what lies behind it is half of one that was refused,
            and could not be taken back then. None: at the file's end.

    Returns:
        Where this piece ends.

    Raises:
        OSError: If it cannot be written; what was there before is still whole.
    """
    rest = memoryview(data)
    try:
        before = file.seek(0, os.SEEK_END)
        if end is not None and before > end:
            before = file.truncate(end)
            file.seek(end)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):  # the next one tries again, where it is told the end
                file.truncate(before)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from None
    return before + len(memoryview(data))


def is_named(handle: int, path: Path) -> bool:
    """Whether an open file or folder is still the one of its name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def named_again(file: FileIO, path: Path) -> FileIO:
    """An open file under its name again, which was removed or is another file's by now.

    Args:
        file: Open to read, too; it is closed.
        path: The name; what bears it now is replaced.

    Raises:
        OSError: If it cannot be written; the file stays open.
    """
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as part:
        again, place = part.open("x+b", buffering=0), 0
        while piece := os.pread(file.fileno(), PIECE_BYTES, place):
            place = append(again, piece)
    file.close()
    return again


def flush(path: Path) -> None:
    """Make the kernel write a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)


def flush_all(folder: Path) -> None:
    """Flush a folder with all that is in it, so that a name for it may be made durable next."""
    for home, _, files in os.walk(folder):
        for name in files:
            flush(Path(home, name))
        flush(Path(home))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing; a power cut takes none of them again.

    Raises:
        OSError: If one cannot be made.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left; only while no other one writes."""
    for file in folder.glob(f".*{PART}"):
        file.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes, read in pieces, each a sign of life."""
    digest, piece = hashlib.sha256(), bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(piece):
            digest.update(memoryview(piece)[:size])
            beat()
    return digest.hexdigest()
