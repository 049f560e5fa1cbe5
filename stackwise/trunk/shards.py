"""The folder of a cache of trunk outputs: shards of whole rows, and the manifest that counts them.

    trunk/cache.json          of what it is the cache, its layout, and the hash of each shard
    trunk/rows-000003.bin     rows one after the other, without a header

A shard counts once the manifest lists it, which takes the old one's place in one step. It is
written by `writer.py` and read by `cache.py`; what a row's bytes are is in `rounding.py`, and what
room it takes in `room.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from stackwise.atomic import write_text
from stackwise.bounded import read_text
from stackwise.jsontext import dumps, loads
from stackwise.trunk.rounding import STORED, check_dtype, row_bytes

FORMAT = 2
MANIFEST = "cache.json"
SHARD_BYTES = 256 << 20
LARGEST_MANIFEST = 64 << 20
LARGEST_KEY = 256


class CacheError(RuntimeError):
    """A cache that is missing, unfinished, of something else, or not one of ours."""


class DamagedShard(CacheError):
    """A shard that is not what was written; only its rows must be made again.

    Attributes:
        shard: Its number.
        rows: Those that it holds.
    """

    def __init__(self, where: str, why: str, shard: int, rows: range) -> None:
        super().__init__(
            f"{where}: {why}; its rows {rows.start} to {rows.stop - 1} must be made again: rebuild "
            f"shard {shard}"
        )
        self.shard = shard
        self.rows = rows


@dataclass(frozen=True)
class Layout:
    """How rows lie in shards.

    Attributes:
        rows: In all, 1 or more.
        tokens: Of a row.
        width: Of a token.
        dtype: What is kept: `float32`, `bfloat16` or `fp8`.
        group: Rows that are always computed together, the micro-batch: a shard holds whole groups,
            so that it can be made again, bit for bit, by itself.
        shard_bytes: No shard is longer, unless one group is.

    Raises:
        ValueError: If a number is less than 1, or the dtype is not known.
    """

    rows: int
    tokens: int
    width: int
    dtype: str
    group: int = 1
    shard_bytes: int = SHARD_BYTES

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        for name in ("rows", "tokens", "width", "group", "shard_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} must be 1 or more")

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return row_bytes(self.tokens, self.width, self.dtype)

    @property
    def rows_per_shard(self) -> int:
        """Of all but the last."""
        return max(self.shard_bytes // (self.row_bytes * self.group), 1) * self.group

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.rows_per_shard)

    def rows_of(self, shard: int) -> range:
        """The rows of a shard."""
        first = shard * self.rows_per_shard
        return range(first, min(first + self.rows_per_shard, self.rows))

    def bytes_of(self, shard: int) -> int:
        """Of a shard's file."""
        return len(self.rows_of(shard)) * self.row_bytes


@dataclass(frozen=True)
class Manifest:
    """What is on disk.

    Attributes:
        key: Of what it is the cache.
        layout: How rows lie.
        hashes: XXH3 in 128 bits of each shard that is whole, from the first on.
    """

    key: str
    layout: Layout
    hashes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all rows are there."""
        return len(self.hashes) == self.layout.shards

    def having(self, shard: int, digest: str) -> Self:
        """This one, with the next shard or another one in the place of an old one."""
        return replace(self, hashes=(*self.hashes[:shard], digest, *self.hashes[shard + 1 :]))

    def save(self, folder: Path) -> None:
        """Make it the folder's."""
        layout = self.layout
        shards = [
            {"file": shard_path(folder, n).name, "bytes": layout.bytes_of(n), "xxh3": digest}
            for n, digest in enumerate(self.hashes)
        ]
        facts = {"format": FORMAT, "key": self.key, **vars(layout), "complete": self.complete}
        write_text(folder / MANIFEST, dumps({**facts, "shards": shards}, indent=0))


def shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard."""
    return folder / f"rows-{shard:06d}.bin"


def shard_name(folder: Path, shard: int) -> str:
    """A shard as messages name it."""
    return f"{folder.name}/{shard_path(folder, shard).name}"


def has_size(folder: Path, layout: Layout, shard: int) -> bool:
    """Whether a shard's file is there, and as long as it must be."""
    path = shard_path(folder, shard)
    return path.is_file() and path.stat().st_size == layout.bytes_of(shard)


def read_manifest(folder: Path, key: str) -> Manifest | None:
    """The manifest of a folder; None if it has none yet.

    Raises:
        CacheError: If it is damaged, of another version, or the cache of something else.
    """
    where, path = f"{folder.name}/{MANIFEST}", folder / MANIFEST
    way_out = "remove the cache, and it is made again"
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise CacheError(f"{where}: is over {LARGEST_MANIFEST} bytes; it is not ours")
        facts = loads(read_text(path, LARGEST_MANIFEST))
        version, found = facts["format"], facts["key"]
        manifest = _manifest(facts) if version == FORMAT else None
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        raise CacheError(f"{where}: is damaged; {way_out}") from None
    if manifest is None:
        raise CacheError(
            f"{where}: has format {version!r}, and this version reads {FORMAT}; {way_out}"
        )
    if found != key:
        raise CacheError(
            f"{where}: is the cache of {found!r:.80}, not of {key!r:.80}; give another folder, or "
            "remove the cache"
        )
    return manifest


def is_manifest(folder: Path) -> bool:
    """Whether a folder holds the manifest of a cache, of this version or another."""
    try:
        facts = loads(read_text(folder / MANIFEST, LARGEST_MANIFEST))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and {"format", "key", "shards"} <= facts.keys()


def _manifest(facts: dict[str, Any]) -> Manifest:
    """What `Manifest.save` wrote.

    Raises:
        ValueError: If it cannot have.
    """
    numbers = ("rows", "tokens", "width", "group", "shard_bytes")
    if not all(type(facts[name]) is int for name in numbers) or facts["dtype"] not in STORED:
        raise ValueError("a layout that is none")
    layout = Layout(**{name: facts[name] for name in (*numbers, "dtype")})
    manifest = Manifest(facts["key"], layout, tuple(each["xxh3"] for each in facts["shards"]))
    for n, each in enumerate(facts["shards"]):
        right = each["bytes"] == layout.bytes_of(n) and each["file"] == shard_path(Path(), n).name
        if n >= layout.shards or not right or not re.fullmatch(r"[0-9a-f]{32}", each["xxh3"]):
            raise ValueError("a shard that cannot be ours")
    if facts["complete"] != manifest.complete:
        raise ValueError("complete, or not")
    return manifest
