"""What is wrong with data: always the file, the rule and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

GZIP = b"\x1f\x8b"
ZIP = b"PK\x03\x04"


class DataError(ValueError):
    """A corpus or a tokenizer that cannot be used as asked."""


def missing_package(what: str, package: str) -> DataError:
    """The error for something that needs a package which is not installed."""
    return DataError(f"{what} needs the package {package}: pip install {package}")


def readable(data_dir: Path, name: str, key: str) -> Path:
    """The file called `name` in `data_dir`, once it is known to be one that can be read.

    Args:
        data_dir: Folder in which relative names are looked up.
        name: A relative or absolute path; `~` is the home folder.
        key: What the name was given as (`data.corpus.path`), for messages.

    Raises:
        DataError: If there is no such file, it is a folder, it is empty or may not be read.
    """
    path = data_dir / Path(name).expanduser()
    if path.is_dir():
        files = sorted(f.name for f in path.iterdir() if f.is_file())
        raise DataError(f"{path}: is a folder; {key} names one file{_some(files, ', such as')}")
    if path.is_symlink() and not path.exists():
        raise DataError(f"{path}: is a link to {path.readlink()}, which is not there; mend it")
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: is neither a file nor a folder; {key} names a file")
    if not path.is_file():
        raise DataError(f"{path}: no such file{_near(path)}; {_where(name, data_dir, key)}")
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise DataError(f"{path}: the file is empty; name one that holds text")
    if head.startswith(GZIP) or head == ZIP:
        raise DataError(f"{path}: is a compressed file; unpack it and name what was inside")
    return path


def known(names: Iterable[str]) -> str:
    """The names there are, for the end of a message."""
    return ", ".join(sorted(names)) or "none"


def _some(files: list[str], before: str) -> str:
    return f"{before} {', '.join(files[:5])}" if files else ""


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor is there a folder {path.parent})"
    near = difflib.get_close_matches(path.name, [f.name for f in path.parent.iterdir()], n=1)
    return f" (there is {near[0]})" if near else ""


def _where(name: str, data_dir: Path, key: str) -> str:
    if Path(name).expanduser().is_absolute():
        return f"correct {key}"
    return f"correct {key}, or placement.data_dir, the folder it is looked up in: {data_dir}"
