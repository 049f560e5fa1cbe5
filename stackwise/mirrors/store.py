"""A folder at an fsspec address, as a mirror needs it: names with sizes, bytes in and out.

Nothing is asked of the address but that what was written whole can be read back. Only on a disk of
this machine is a file renamed into place, since there it may be cut; elsewhere a file that was cut
is listed by no index (`index.py`).
"""

from __future__ import annotations

import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem
from fsspec.utils import get_protocol

from stackwise.atomic import PART, flush
from stackwise.mirrors.errors import MirrorError, redacted
from stackwise.runs import RunError

PIECE_BYTES = 4 << 20


class Store:
    """A folder at an address; the address is first asked when something is read or written.

    Args:
        url: The address, with its protocol; without one a path of this machine.
        inside: Folders under it, one after the other.

    Raises:
        RunError: If fsspec does not know the protocol, or what it needs is not installed.
    """

    def __init__(self, url: str, inside: str = "") -> None:
        try:
            for each in url.split("::"):  # chained, as in simplecache::s3://bucket
                protocol = get_protocol(each) if "/" in each else each
                fsspec.get_filesystem_class(protocol)
        except (ValueError, ImportError) as error:
            raise RunError(f"{redacted(url)}: {redacted(str(error))}") from None
        self.url, self.inside, self.is_local = url, inside, protocol in ("file", "local")
        self.shown = f"{redacted(url).rstrip('/')}{inside}"

    @cached_property
    def fs(self) -> AbstractFileSystem:
        """The file system of the address."""
        return fsspec.url_to_fs(self.url)[0]

    @cached_property
    def root(self) -> str:
        """The folder's path there."""
        return f"{str(fsspec.url_to_fs(self.url)[1]).rstrip('/')}{self.inside}"

    def under(self, name: str) -> Store:
        """The folder of a name in it."""
        return Store(self.url, f"{self.inside}/{name}")

    def names(self, folder: str = "") -> dict[str, int | None]:
        """What lies in it, or in a folder of it: names of files to sizes, of folders to None."""
        path = f"{self.root}/{folder}".rstrip("/")
        self.fs.invalidate_cache()
        try:
            entries: list[dict[str, Any]] = self.fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        found = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if str(entry["name"]).rstrip("/") != path:  # some list a folder in itself
                found[name] = None if entry["type"] == "directory" else int(entry["size"] or 0)
        return found

    def put(self, source: Path, name: str) -> None:
        """Copy a file of this machine into it."""
        path = self._ready(name)
        if not self.is_local:
            self.fs.put_file(str(source), path)
            return
        part = self._part(path)
        shutil.copyfile(source, part)
        self._place(part, path)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file."""
        path = self._ready(name)
        if not self.is_local:
            self.fs.pipe_file(path, data)
            return
        part = self._part(path)
        part.write_bytes(data)
        self._place(part, path)

    def read(self, name: str, most: int) -> bytes:
        """The bytes of a file, `most + 1` of them at most.

        Raises:
            MirrorError: If it is none, but a pipe or a device.
        """
        self._check_is_file(name)
        with self.fs.open(f"{self.root}/{name}", "rb") as file:
            data: bytes = file.read(most + 1)
        return data

    def copy_out(self, name: str, target: Path, size: int) -> None:
        """Copy a file to this machine, and no byte more than its size.

        Raises:
            MirrorError: If it is longer or shorter, or no file.
        """
        self._check_is_file(name)
        left = max(size, 0) + 1
        with self.fs.open(f"{self.root}/{name}", "rb") as file, target.open("xb") as out:
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                out.write(piece)
                left -= len(piece)
        if left != 1 or size < 0:
            raise MirrorError(f"{self.shown}/{name}: is not {size} bytes long, as its index says")

    def remove(self, name: str) -> None:
        """Remove a file."""
        self.fs.rm_file(f"{self.root}/{name}")

    def _check_is_file(self, name: str) -> None:
        path = f"{self.root}/{name}"
        if self.is_local and os.path.exists(path) and not os.path.isfile(path):
            raise MirrorError(f"{self.shown}/{name}: is no file; it is not ours")

    def _ready(self, name: str) -> str:
        path = f"{self.root}/{name}"
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        return path

    @staticmethod
    def _part(path: str) -> Path:
        return Path(path).with_name(f".{Path(path).name}{PART}")

    @staticmethod
    def _place(part: Path, path: str) -> None:
        flush(part)
        os.replace(part, path)
        flush(part.parent)
