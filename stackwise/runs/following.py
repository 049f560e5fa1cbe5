"""A run folder that is read again and again: each time only what is new in it.

A page that watches a run looks twice a second. `Follower.read` goes on where it stopped: at the
next whole line of the events, at the next whole batch of the metrics. What it holds is always what
a first reading of the folder would give; an attempt that resumes wins from its first step on
(`metrics.py`). Gradient norms of blocks are kept coarse (`coarse.py`), every other number whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise.bounded import opened
from stackwise.runs.coarse import Coarse
from stackwise.runs.event_lines import Event, next_lines
from stackwise.runs.events import as_now, of_kinds
from stackwise.runs.metrics import read_compacted, segments
from stackwise.runs.pieces import DamagedPiece, next_piece

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

NUMBERS = (
    "step", "stage", "tokens", "flops", "seconds",
    "loss", "lr", "grad_norm", "masked_frac",
)  # fmt: skip
MAPPED_BYTES = 1 << 26
SHOWN = ("eval", "memory", "paced", "result", "failed")
NORMS = ("embedding_grad_norm", "block_grad_norms", "head_grad_norm")


class Follower:
    """What a run's events and metrics hold by now.

    Attributes:
        events: Those of the kinds that are shown of a run that goes on, oldest first.
        lines: How many there are of all kinds.
        looks: The `eval` events, those of steps that were taken again once.
        damaged: Lines of the events that are none.
        broken: Pieces of the metrics that are not what was written, and are left out.
        norms: Gradient norms of the embedding, of every block and of the head, in buckets of steps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.forget()

    def forget(self) -> None:
        """Begin at the beginning with the next reading."""
        self.events: list[Event] = []
        self.looks: list[Event] = []
        self.lines = self.damaged = self.events_end = 0
        self.look_firsts: dict[int, int] = {}
        self._forget_metrics()

    def _forget_metrics(self) -> None:
        self.ends: dict[Path, int] = {}
        self.firsts: dict[Path, int] = {}
        self.schemas: dict[Path, pa.Schema] = {}
        self.count = self.broken = 0
        self.held: Numbers = np.empty((len(NUMBERS), 1024))
        self.norms = Coarse()

    def numbers(self, name: str) -> Numbers:
        """One column of the metrics, step by step; NaN where a row lacks it."""
        return self.held[NUMBERS.index(name), : self.count]

    def read(self) -> bool:
        """Read on.

        Returns:
            Whether anything was new.

        Raises:
            OSError: If a file is there and cannot be read.
        """
        had = self.lines, self.damaged, self.count
        self._read_events()
        self._read_metrics()
        return had != (self.lines, self.damaged, self.count)

    def _read_events(self) -> None:
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with opened(path) as file:
            size = file.seek(0, 2)
            if size < self.events_end:  # another file of that name
                self.forget()
            file.seek(self.events_end)
            lines, self.events_end = next_lines(file)
        found, damaged, _ = of_kinds(lines, SHOWN)
        self.lines += len(lines)
        self.damaged += damaged
        for event in as_now(self.folder, found):
            self._take_event(event)

    def _take_event(self, event: Event) -> None:
        self.events.append(event)
        numbered = isinstance(event.get("step"), int) and isinstance(event.get("attempt"), int)
        if event.get("kind") == "eval" and numbered:
            self._take_look(event)

    def _take_look(self, look: Event) -> None:
        """As `counted_once`, which says the same of all events at once."""
        attempt, step = look["attempt"], look["step"]
        if attempt not in self.look_firsts:
            self.look_firsts[attempt] = step
            self.looks = [o for o in self.looks if o["attempt"] >= attempt or o["step"] < step]
        if all(step < first for n, first in self.look_firsts.items() if n > attempt):
            self.looks.append(look)

    def _read_metrics(self) -> None:
        """Take new batches; where an attempt takes steps again, all begins anew, which is rare."""
        paths = segments(self.folder)
        if not paths:
            self._read_compacted()
            return
        if any(path.stat().st_size < self.ends.get(path, 0) for path in paths):
            self._forget_metrics()
        new = {path: list(self._batches(path)) for path in paths}
        begun = {p: _first(b) for p, b in new.items() if b and p not in self.firsts}
        if self.count and any(step <= self.numbers("step")[-1] for step in begun.values()):
            self._forget_metrics()
            self._read_metrics()
            return
        self.firsts |= begun
        for number, path in enumerate(paths):
            later = [self.firsts[p] for p in paths[number + 1 :] if p in self.firsts]
            for batch in new[path]:
                self._take(batch, min(later, default=1 << 62))

    def _read_compacted(self) -> None:
        """From metrics.parquet, where somebody left only that."""
        path = self.folder / "metrics.parquet"
        if not path.exists() or self.ends.get(path) == path.stat().st_size:
            return
        self._forget_metrics()
        table = read_compacted(self.folder)
        if table is None:
            return  # damaged, and there is nothing else
        self.ends[path] = path.stat().st_size
        for batch in table.to_batches():
            self._take(batch, 1 << 62)

    def _batches(self, path: Path) -> Iterator[pa.RecordBatch]:
        """The batches behind the place where the last reading ended; empty ones are left out."""
        import pyarrow as pa

        begin = self.ends.get(path, 0)
        new_bytes = path.stat().st_size - begin
        if new_bytes <= 0:
            return
        with _opened(path, begin, new_bytes) as (source, before):
            while True:
                try:
                    found = next_piece(source, self.schemas.get(path))
                except DamagedPiece:
                    self.broken += 1
                    found = None
                except (EOFError, pa.ArrowException, OSError):
                    return  # its end, or a batch that is being written or was cut
                self.ends[path] = before + source.tell()
                if isinstance(found, pa.Schema):
                    self.schemas[path] = found
                elif found is not None and found.num_rows:
                    yield found

    def _take(self, batch: pa.RecordBatch, limit: int) -> None:
        """Keep the rows of a batch that come before step `limit`."""
        rows = int((_column(batch, "step") < limit).sum())
        end = self.count + rows
        if end > self.held.shape[1]:
            grown = np.empty((len(NUMBERS), max(end, 2 * self.held.shape[1])))
            grown[:, : self.count] = self.held[:, : self.count]
            self.held = grown
        for place, name in enumerate(NUMBERS):
            self.held[place, self.count : end] = _column(batch, name)[:rows]
        step, stage = self.held[:2, self.count : end]
        self.norms.add(step, stage, norm_matrix(batch)[:rows])
        self.count = end


@contextmanager
def _opened(path: Path, begin: int, new_bytes: int) -> Iterator[tuple[Any, int]]:
    """The new part of a file, and how many bytes lie before what can be read of it.

    Only what is large is mapped: a map of a file that somebody cuts short meanwhile ends this
    process, and reading a little is as quick.
    """
    import pyarrow as pa

    if new_bytes > MAPPED_BYTES:
        with pa.memory_map(os.fsencode(path)) as source:
            source.seek(begin)
            yield source, 0
    else:
        with opened(path) as file:
            file.seek(begin)
            yield pa.BufferReader(file.read(new_bytes)), begin


def _first(batches: list[pa.RecordBatch]) -> int:
    return int(batches[0].column("step")[0].as_py())


def _column(batch: pa.RecordBatch, name: str) -> Numbers:
    """A column as floats; NaN where it is missing."""
    place = batch.schema.get_field_index(name)
    if place < 0:
        return np.full(batch.num_rows, np.nan)
    return np.asarray(batch.column(place).to_numpy(zero_copy_only=False), np.float64)


def norm_matrix(batch: pa.RecordBatch) -> Numbers:
    """Gradient norms of the embedding, of each block and of the head; (rows, blocks + 2)."""
    embedding, head = _column(batch, NORMS[0]), _column(batch, NORMS[2])
    return np.column_stack([embedding, _lists(batch, NORMS[1]), head])


def _lists(batch: pa.RecordBatch, name: str) -> Numbers:
    """A column of lists as a matrix; a row that is missing, or shorter, is filled with NaN."""
    place = batch.schema.get_field_index(name)
    if place < 0:
        return np.empty((batch.num_rows, 0))
    column = batch.column(place)
    widths = np.diff(column.offsets.to_numpy())
    width = int(widths.max(initial=0))
    if not column.null_count and (widths == width).all():
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, np.float64).reshape(-1, width)
    out = np.full((batch.num_rows, width), np.nan)
    for row, found in enumerate(column.to_pylist()):
        out[row, : len(found or ())] = [np.nan if v is None else v for v in found or ()]
    return out
