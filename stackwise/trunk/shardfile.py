"""One shard of a cache: written whole or not at all, and written again where it was damaged.

In which order shards are written is in `writer.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from torch import Tensor
from xxhash import xxh3_128

from stackwise.atomic import replacing
from stackwise.disk_errors import disk_named
from stackwise.trunk.rounding import encode
from stackwise.trunk.shards import CacheError, Layout, read_manifest, shard_name, shard_path

# Written at once. From 2 MiB on the kernel keeps what is written in large pages: without them a
# first pass is under the bound of `benchmarks/reading.py`.
PIECE_BYTES = 4 << 20


class Unfinished(Exception):
    """Rows ended before their shard did."""


def rows_of(x_BTD: Tensor, layout: Layout) -> Iterator[memoryview]:
    """The bytes of each row."""
    for row_N in encode(x_BTD, layout.dtype):
        yield row_N.numpy().data


def write_shard(folder: Path, layout: Layout, shard: int, rows: Iterator[memoryview]) -> str:
    """Write a shard whole or not at all.

    Args:
        folder: The cache's.
        layout: How rows lie.
        shard: Its number.
        rows: Bytes of rows; as many are taken as it holds.

    Returns:
        Its hash.

    Raises:
        Unfinished: If there are too few.
        OSError: If it cannot be written.
    """
    digest, wanted = xxh3_128(), len(layout.rows_of(shard))
    what = f"{shard_name(folder, shard)}: cannot be written"
    with (
        disk_named(what, "the shards before it are whole"),
        replacing(shard_path(folder, shard)) as part,
        part.open("wb", PIECE_BYTES) as file,
    ):
        for row in islice(rows, wanted):
            wanted -= 1
            digest.update(row)
            file.write(row)
        if wanted:
            raise Unfinished
    return digest.hexdigest()


def rebuild(folder: Path, key: str, shard: int, batches: Iterable[Tensor]) -> bool:
    """Write the rows of a shard again; the other ones are not touched.

    Args:
        folder: The cache's.
        key: Of what it is the cache.
        shard: Its number, as `DamagedShard` says it.
        batches: (B, T, D) each, on any device; together the rows of the shard, in order.

    Returns:
        Whether they are what was there before it was damaged, to the last bit.

    Raises:
        CacheError: If there is no such shard.
        ValueError: If these are fewer rows, or more.
        OSError: If it cannot be written.
    """
    manifest = read_manifest(folder, key)
    if manifest is None or not 0 <= shard < len(manifest.hashes):
        raise CacheError(f"{folder.name}: has no shard {shard} to rebuild; write the cache first")
    layout = manifest.layout
    rows = (row for x_BTD in batches for row in rows_of(x_BTD.detach().cpu(), layout))
    wrong = f"batches: must have {len(layout.rows_of(shard))} rows, those of shard {shard}"
    try:
        digest = write_shard(folder, layout, shard, rows)
    except Unfinished:
        raise ValueError(f"{wrong}; they had fewer") from None
    if next(rows, None) is not None:
        raise ValueError(f"{wrong}; they had more")
    if digest == manifest.hashes[shard]:
        return True
    manifest.having(shard, digest).save(folder)
    return False
