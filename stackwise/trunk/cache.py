"""Trunk outputs read from disk: in order, ahead of the step, and never a damaged row.

    cache = TrunkCache(folder, key)
    with cache.batches(first_row, size, count, dtype=torch.bfloat16) as batches:
        for x_BTD in batches: ...

Shards are mapped into memory. Each is hashed once before its first row is given out, by the thread
that reads, which hashes the next shard piece by piece while it reads this one. Rows are counted
over the whole of training: after the last one comes the first again.

Written by `writer.py`; the folder is in `shards.py`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackwise.data.batches import Prefetcher, prefetch
from stackwise.trunk.pages import pages
from stackwise.trunk.rounding import STORED, decode
from stackwise.trunk.shardfile import PIECE_BYTES, rebuild
from stackwise.trunk.shards import (
    CacheError,
    DamagedShard,
    Layout,
    has_size,
    read_manifest,
    shard_name,
    shard_path,
)

MAPS = 4  # shards mapped at a time: each holds a file open
Bytes = NDArray[np.uint8]


class TrunkCache:
    """A complete cache, to read.

    Args:
        folder: Where it is.
        key: Of what it must be the cache.

    Raises:
        CacheError: If there is none, it is not complete, or of something else.
        DamagedShard: If a shard is missing or has another length.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        self._guard = threading.Lock()
        self._hashed: set[int] = set()
        self._load()
        for shard in range(self.layout.shards):
            if not has_size(folder, self.layout, shard):
                raise self._damaged(shard, "is missing or cut")

    def _load(self) -> None:
        manifest = read_manifest(self.folder, self._key)
        if manifest is None:
            raise CacheError(f"{self.folder.name}: holds no cache; write it first")
        if not manifest.complete:
            raise CacheError(
                f"{self.folder.name}: has {len(manifest.hashes)} of {manifest.layout.shards} "
                "shards; go on writing it first"
            )
        self.layout: Layout = manifest.layout
        self._hashes = manifest.hashes
        self._maps: OrderedDict[int, Bytes] = OrderedDict()
        self._check: Check | None = None

    def read(self, first: int, count: int, dtype: torch.dtype) -> Tensor:
        """Some rows.

        Args:
            first: The number of the first one, 0 or more; over the last one it begins again.
            count: How many.
            dtype: float32 or bfloat16.

        Returns:
            (count, T, D), new memory.

        Raises:
            ValueError: If the dtype is another one.
            DamagedShard: If they are not what was written.
        """
        _check(dtype)
        layout = self.layout
        raw = torch.empty(count * layout.row_bytes, dtype=torch.uint8)
        self._copy(first, raw.numpy())
        if dtype == STORED[layout.dtype]:
            return raw.view(dtype).view(count, layout.tokens, layout.width)
        out_BTD = torch.empty(count, layout.tokens, layout.width, dtype=dtype)
        decode(raw.view(count, layout.row_bytes), layout.dtype, out_BTD)
        return out_BTD

    def batches(
        self, first: int, size: int, count: int, *, dtype: torch.dtype, ahead: int = 2
    ) -> Prefetcher[Tensor]:
        """Batches of rows in order, read ahead by a thread; use it in a `with` block.

        A batch may be used until the next one is asked for: then its memory is read into again, and
        a backward that still needs it gets autograd's error.

        Args:
            first: The number of the first row, 0 or more.
            size: Rows of a batch.
            count: Batches.
            dtype: float32 or bfloat16.
            ahead: Batches that are read before they are asked for, 1 or more.

        Raises:
            ValueError: If the dtype is another one.
            DamagedShard: Where a batch is taken that needs a damaged shard.
        """
        _check(dtype)
        return prefetch(self._batches(first, size, count, dtype, buffers=ahead + 2), ahead)

    def _batches(
        self, first: int, size: int, count: int, dtype: torch.dtype, *, buffers: int
    ) -> Iterator[Tensor]:
        """One in the reader's hands, `ahead` in the queue, one in use: as many buffers in turn."""
        layout = self.layout
        same = dtype == STORED[layout.dtype]
        shape = (size, layout.tokens, layout.width)
        length = size * layout.tokens * layout.width * dtype.itemsize
        ring = [pages(length) for _ in range(min(buffers, count))]
        raw = pages(size * layout.row_bytes) if not same else None
        for number in range(count):
            buffer = ring[number % buffers]
            torch.autograd.graph.increment_version(buffer)
            x_BTD = buffer.view(dtype).view(shape)
            row = first + number * size
            self._copy(row, (buffer if raw is None else raw).numpy())
            if raw is not None:
                decode(raw.view(size, layout.row_bytes), layout.dtype, x_BTD)
            yield x_BTD
            self._hash_on(row + size, 2 * size * layout.row_bytes)

    def rebuild(self, shard: int, batches: Iterable[Tensor]) -> bool:
        """Write a damaged shard's rows again; see `shardfile.rebuild`."""
        with self._guard:
            same = rebuild(self.folder, self._key, shard, batches)
            self._hashed.discard(shard)
            self._load()
        return same

    def _copy(self, first: int, target: Bytes) -> None:
        """Fill `target` with the bytes of rows from `first` on."""
        layout, done = self.layout, 0
        while done < len(target):
            row = (first + done // layout.row_bytes) % layout.rows
            shard = row // layout.rows_per_shard
            begin = (row - layout.rows_of(shard).start) * layout.row_bytes
            end = min(begin + len(target) - done, layout.bytes_of(shard))
            np.copyto(target[done : done + end - begin], self._map(shard)[begin:end])
            done += end - begin

    def _map(self, shard: int) -> Bytes:
        """The bytes of a shard that is as it was written."""
        with self._guard:
            if not has_size(self.folder, self.layout, shard):  # or the kernel would end us
                raise self._damaged(shard, "is missing or cut")
            self._hash(shard)
            if shard not in self._maps:
                with shard_path(self.folder, shard).open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._maps[shard] = np.frombuffer(mapped, dtype=np.uint8)
                if len(self._maps) > MAPS:
                    self._maps.popitem(last=False)
            self._maps.move_to_end(shard)
            return self._maps[shard]

    def _hash_on(self, row: int, count: int) -> None:
        """Hash some bytes of the shard after a row's, so that none is waited for at its end."""
        layout = self.layout
        shard = (row % layout.rows // layout.rows_per_shard + 1) % layout.shards
        with self._guard, suppress(DamagedShard):  # raised where its rows are wanted
            self._hash(shard, count)

    def _hash(self, shard: int, count: int | None = None) -> None:
        """Compare a shard's hash unless that was done: go on by `count` bytes, or to its end."""
        if shard in self._hashed:
            return
        if self._check is None or self._check.shard != shard:
            self._check = Check(self.folder, shard)
        try:
            found = self._check.advance(count)
        except OSError as error:
            self._check = None
            raise self._damaged(shard, f"cannot be read: {error.strerror}") from error
        if found is None:
            return
        self._check = None
        if found != self._hashes[shard]:
            raise self._damaged(shard, "is not what was written (its hash differs)")
        self._hashed.add(shard)

    def _damaged(self, shard: int, why: str) -> DamagedShard:
        return DamagedShard(shard_name(self.folder, shard), why, shard, self.layout.rows_of(shard))


def _check(dtype: torch.dtype) -> None:
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"dtype: rows are read as float32 or bfloat16, not as {dtype}")


class Check:
    """A shard that is being hashed, piece by piece."""

    def __init__(self, folder: Path, shard: int) -> None:
        self.shard = shard
        self._path = shard_path(folder, shard)
        self._place = 0
        self._digest = hashlib.sha256()
        self._piece = bytearray(PIECE_BYTES)

    def advance(self, count: int | None) -> str | None:
        """Go on by `count` bytes or to the end; the hash, once all is read.

        Raises:
            OSError: If it cannot be read.
        """
        with self._path.open("rb", buffering=0) as file:
            until = None if count is None else self._place + count
            while until is None or self._place < until:
                got = os.preadv(file.fileno(), [self._piece], self._place)
                if not got:
                    return self._digest.hexdigest()
                self._digest.update(memoryview(self._piece)[:got])
                self._place += got
        return None
