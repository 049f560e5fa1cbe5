"""Writing trunk outputs to disk: rows in order, by one thread, committed shard by shard.

    with CacheWriter(folder, key, layout) as writer:
        for first in range(writer.rows_done, layout.rows, layout.group):
            writer.write(first, trunk_output_BTD)

Killed at any moment it goes on at the last whole shard. One file is written in
`shardfile.py`; the folder is in `shards.py`, the reader in `cache.py`.
"""

from __future__ import annotations

import queue
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from stackwise.atomic import sweep
from stackwise.data.batches import step_aside
from stackwise.trunk.shardfile import Unfinished, rows_of, write_shard
from stackwise.trunk.shards import (
    LARGEST_KEY,
    MANIFEST,
    CacheError,
    Layout,
    Manifest,
    has_size,
    read_manifest,
    shard_name,
)


class CacheWriter:
    """Writes a cache, or what an unfinished one lacks; use it in a `with` block.

    Leaving the block waits until all that was given is written; leaving it by an error does not.

    Args:
        folder: Where; made if it is not there. Only one process may write there.
        key: Of what it is the cache: whatever changes the rows changes it.
        layout: How rows lie.
        ahead: Batches that wait to be written before `write` does, 1 or more.

    Attributes:
        lost: Why rows that were written once must be written again; None where none must.

    Raises:
        CacheError: If the folder holds another cache.
        ValueError: If the key is empty or over 256 characters.
    """

    def __init__(self, folder: Path, key: str, layout: Layout, *, ahead: int = 2) -> None:
        if not 0 < len(key) <= LARGEST_KEY:
            raise ValueError(f"key: {key!r:.80} must have 1 to {LARGEST_KEY} characters")
        if ahead < 1:
            raise ValueError(f"ahead: {ahead} must be 1 or more")
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        self._folder = folder
        self._manifest, self.lost = resumed(folder, key, layout)
        self._manifest.save(folder)
        self._next_row = self.rows_done
        self._queue: queue.Queue[Tensor | None] = queue.Queue(ahead)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="stackwise-cache", daemon=True)
        self._thread.start()

    @property
    def rows_done(self) -> int:
        """Rows that a kill cannot take any more; where a resumed writer goes on."""
        layout = self._manifest.layout
        return min(len(self._manifest.hashes) * layout.rows_per_shard, layout.rows)

    @property
    def complete(self) -> bool:
        """Whether all rows are on disk."""
        return self._manifest.complete

    def write(self, first_row: int, x_BTD: Tensor) -> None:
        """Hand over the next rows; waits while too many wait already.

        Args:
            first_row: The number of the first one: those before it must have been handed over.
            x_BTD: (B, T, D), float32 or bfloat16, of any device; a copy is taken.

        Raises:
            ValueError: If these are not the next rows, or of another shape than the layout's.
            OSError: If earlier ones could not be written.
        """
        layout = self._manifest.layout
        self._check()
        if first_row != self._next_row:
            raise ValueError(
                f"first_row: {first_row} is not the next one, {self._next_row}; write rows in order"
            )
        if x_BTD.ndim != 3 or x_BTD.shape[1:] != (layout.tokens, layout.width):
            raise ValueError(
                f"x_BTD: {tuple(x_BTD.shape)} must be (rows, {layout.tokens}, {layout.width})"
            )
        if first_row + len(x_BTD) > layout.rows:
            raise ValueError(
                f"x_BTD: {len(x_BTD)} rows from {first_row} on are over {layout.rows}; give fewer"
            )
        self._queue.put(x_BTD.detach().to("cpu", copy=True))
        self._next_row += len(x_BTD)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if not self._thread.is_alive():
            raise RuntimeError(f"{self._folder.name}: its writer is closed; open another one")

    def _run(self) -> None:
        """Write shards until all are there, or nothing more comes."""
        step_aside()
        given = iter(self._queue.get, None)
        layout = self._manifest.layout
        rows = (row for x_BTD in given for row in rows_of(x_BTD, layout))
        try:
            for shard in range(len(self._manifest.hashes), layout.shards):
                digest = write_shard(self._folder, layout, shard, rows)
                self._manifest = self._manifest.having(shard, digest)
                self._manifest.save(self._folder)
        except Unfinished:
            return
        except BaseException as error:  # whatever it is belongs to whoever writes
            self._failure = error
        for _ in given:
            pass  # so that nobody waits for room in vain

    def close(self, *, abandon: bool = False) -> None:
        """Write what was handed over, and end the thread; once is enough.

        Args:
            abandon: Do not write what still waits.

        Raises:
            OSError: If something could not be written.
        """
        if abandon:
            with suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None and not abandon:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(abandon=error is not None)


def resumed(folder: Path, key: str, layout: Layout) -> tuple[Manifest, str | None]:
    """What is whole of a cache, to go on with, and why rows that it had must be made again.

    Raises:
        CacheError: If the folder holds another cache, or this one in another layout.
    """
    found = read_manifest(folder, key)
    if found is None:
        gone = any(folder.glob("rows-*.bin"))
        return Manifest(key, layout), f"{folder.name}/{MANIFEST}: is missing" if gone else None
    if found.layout != layout:
        raise CacheError(
            f"{folder.name}: holds {found.layout}, and {layout} was asked for; give another "
            "folder, or remove the cache"
        )
    for shard in range(len(found.hashes)):
        if not has_size(folder, layout, shard):
            whole = replace(found, hashes=found.hashes[:shard])
            return whole, f"{shard_name(folder, shard)}: is missing or cut"
    return found, None
