"""Trunk outputs read from disk: in order, ahead of the step, and never a damaged row.

    cache = TrunkCache(folder, key)
    with cache.batches(first_row, size, count, dtype=torch.bfloat16) as batches:
        for x_BTD in batches: ...

Shards are mapped into memory, and nothing is copied that need not be. Each is hashed once before
its first row is given out, by the thread that reads, which hashes the next shard piece by piece
while it reads this one. The hash, XXH3, is as fast as memory: it finds damage, and is no guard
against somebody who deceives. Rows are counted over the whole of training: after the last one comes
the first again.

Written by `writer.py`; the folder is in `shards.py`.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from xxhash import xxh3_128

from stackwise.data.batches import Prefetcher, prefetch
from stackwise.trunk.pages import bring, mapped
from stackwise.trunk.rounding import STORED, decode
from stackwise.trunk.shardfile import rebuild
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
CHECKED_BYTES = 8 << 20  # brought and hashed at once (`benchmarks/reading.py`)


class TrunkCache:
    """A complete cache, to read.

    Args:
        folder: Where it is.
        key: Of what it must be the cache.

    Attributes:
        rebuilt: How often each shard was written again.

    Raises:
        CacheError: If there is none, it is not complete, or of something else.
        DamagedShard: If a shard is missing or has another length.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self._key = key
        self._guard = threading.Lock()
        self._hashed: set[int] = set()
        self.rebuilt: Counter[int] = Counter()
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
        self._maps: OrderedDict[int, Tensor] = OrderedDict()
        self._check: Check | None = None

    def read(self, first: int, count: int, dtype: torch.dtype) -> Tensor:
        """Some rows.

        Args:
            first: The number of the first one, 0 or more; over the last one it begins again.
            count: How many.
            dtype: float32 or bfloat16.

        Returns:
            (count, T, D). It is the mapped file itself where its dtype is asked for and the rows
            lie in one shard; what is written to it changes neither the file nor what is read later.

        Raises:
            ValueError: If the dtype is another one.
            DamagedShard: If they are not what was written.
        """
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"dtype: rows are read as float32 or bfloat16, not as {dtype}")
        layout = self.layout
        shape_TD = layout.tokens, layout.width
        parts = list(self._parts(first, count))
        if len(parts) == 1 and dtype == STORED[layout.dtype]:
            return parts[0].view(dtype).view(count, *shape_TD)
        out_BTD = torch.empty(count, *shape_TD, dtype=dtype)
        done = 0
        for bytes_BN in parts:
            decode(bytes_BN, layout.dtype, out_BTD[done : done + len(bytes_BN)])
            done += len(bytes_BN)
        return out_BTD

    def batches(
        self,
        first: int,
        size: int,
        count: int,
        *,
        dtype: torch.dtype,
        ahead: int = 2,
        pinned: bool = False,
    ) -> Prefetcher[Tensor]:
        """Batches of rows in order, read ahead by a thread; use it in a `with` block.

        Args:
            first: The number of the first row, 0 or more.
            size: Rows of a batch.
            count: Batches.
            dtype: float32 or bfloat16.
            ahead: Batches that are read before they are asked for, 1 or more.
            pinned: Put them where a card can copy from by itself.

        Raises:
            ValueError, DamagedShard: As `read`, where the batch is taken.
        """
        batches = self._batches(first, size, count, dtype)
        ready = (x_BTD.pin_memory() for x_BTD in batches) if pinned else batches
        return prefetch(ready, ahead, aside=False)

    def _batches(self, first: int, size: int, count: int, dtype: torch.dtype) -> Iterator[Tensor]:
        for number in range(count):
            yield self.read(first + number * size, size, dtype)
            self._hash_on(first + (number + 1) * size, 2 * size * self.layout.row_bytes)

    def rebuild(self, shard: int, batches: Iterable[Tensor]) -> bool:
        """Write a damaged shard's rows again; see `shardfile.rebuild`."""
        with self._guard:
            same = rebuild(self.folder, self._key, shard, batches)
            self._hashed.discard(shard)
            self.rebuilt[shard] += 1
            self._load()
        return same

    def _parts(self, first: int, count: int) -> Iterator[Tensor]:
        """The bytes of rows from `first` on, (B, N) of each shard in turn, all in memory."""
        layout = self.layout
        while count:
            row = first % layout.rows
            shard = row // layout.rows_per_shard
            rows = range(row, min(row + count, layout.rows_of(shard).stop))
            begin = (row - layout.rows_of(shard).start) * layout.row_bytes
            part = self._map(shard)[begin : begin + len(rows) * layout.row_bytes]
            try:
                bring(part)
            except OSError as error:
                raise self._damaged(shard, f"cannot be read: {error.strerror}") from error
            yield part.view(len(rows), layout.row_bytes)
            first, count = first + len(rows), count - len(rows)

    def _map(self, shard: int) -> Tensor:
        """The bytes of a shard that is as it was written."""
        with self._guard:
            if not has_size(self.folder, self.layout, shard):  # or the kernel would end us
                raise self._damaged(shard, "is missing or cut")
            self._hash(shard)
            memory = self._maps.pop(shard, None)
            if memory is None or memory._version:  # somebody wrote to a batch, in this mapping
                memory = mapped(shard_path(self.folder, shard))
            self._keep(shard, memory)
            return memory

    def _keep(self, shard: int, memory: Tensor) -> None:
        """Leave a shard mapped, and let go of the one that was used longest ago."""
        self._maps[shard] = memory
        if len(self._maps) > MAPS:
            self._maps.popitem(last=False)

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
        try:
            if self._check is None or self._check.shard != shard:
                self._check = Check(self.folder, shard)
            found = self._check.advance(count)
        except OSError as error:
            self._check = None
            raise self._damaged(shard, f"cannot be read: {error.strerror}") from error
        if found is None:
            return
        memory, self._check = self._check.memory, None
        if found != self._hashes[shard]:
            raise self._damaged(shard, "is not what was written (its hash differs)")
        self._hashed.add(shard)
        self._keep(shard, memory)

    def _damaged(self, shard: int, why: str) -> DamagedShard:
        return DamagedShard(shard_name(self.folder, shard), why, shard, self.layout.rows_of(shard))


class Check:
    """A shard that is being hashed, piece by piece.

    Attributes:
        shard: Its number.
        memory: Its bytes, mapped; nobody else has them until they are hashed.

    Raises:
        OSError: If it cannot be mapped.
    """

    def __init__(self, folder: Path, shard: int) -> None:
        self.shard = shard
        self.memory = mapped(shard_path(folder, shard))
        self._place = 0
        self._digest = xxh3_128()

    def advance(self, count: int | None) -> str | None:
        """Go on by `count` bytes or to the end; the hash, once all is read.

        Raises:
            OSError: If it cannot be read.
        """
        whole = self.memory.numel()
        until = whole if count is None else min(self._place + count, whole)
        while self._place < until:
            piece = self.memory[self._place : self._place + CHECKED_BYTES]
            bring(piece)
            self._digest.update(piece.numpy().data)
            self._place += len(piece)
        return self._digest.hexdigest() if self._place == whole else None
