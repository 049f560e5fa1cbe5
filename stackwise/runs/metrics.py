"""Metrics: the numbers of every step, as Arrow streams, one per attempt.

Rows are appended in batches, each in one piece; a batch that a crash cut is simply not there. An
attempt that resumes starts a new file, and from its first step on it wins. What happened between
the numbers is in `events.py`.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_128

from stackwise.atomic import append, replacing
from stackwise.bounded import opened
from stackwise.jsontext import read_mapping
from stackwise.runs.damage import DamagedRun
from stackwise.runs.pieces import END_OF_STREAM, DamagedPiece, hash_of, next_piece, packed

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SEAL = b"xxh3"
SEGMENT = re.compile(r"[0-9]{1,16}\.arrows")
ROWS_PER_BATCH = 512
SECONDS_PER_BATCH = 1.0
COLUMNS = {
    "step": "int64",
    "stage": "int64",
    "stage_step": "int64",
    "tokens": "int64",
    "flops": "float64",
    "loss": "float64",
    "lr": "float64",
    "grad_norm": "float64",
    "masked_frac": "float64",
    "seconds": "float64",
    "embedding_grad_norm": "float64",
    "head_grad_norm": "float64",
    "block_grad_norms": "list",
}


def schema(columns: Mapping[str, str] = COLUMNS) -> pa.Schema:
    """Arrow's types for columns of `int64`, `float64` and `list` (of float64, one per block)."""
    import pyarrow as pa

    kinds = {"int64": pa.int64(), "float64": pa.float64(), "list": pa.list_(pa.float64())}
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


class MetricLog:
    """Collects rows and appends them to one attempt's stream; any thread may.

    Args:
        path: The file; it must be new.
        columns: Name to kind of everything that a row may hold; `step` is one of them.
    """

    def __init__(self, path: Path, columns: Mapping[str, str] = COLUMNS) -> None:
        self.schema = schema(columns)
        self.names = set(columns)
        path.parent.mkdir(exist_ok=True)
        self.path, self.file = path, path.open("x+b", buffering=0)
        self.end = append(self.file, self.schema.serialize())
        self.rows: list[dict[str, Any]] = []
        self.written = time.monotonic()
        self.guard = threading.Lock()

    def write(self, row: Mapping[str, Any]) -> None:
        """Take one row; a column that it lacks is missing there.

        Raises:
            ValueError: If it holds a column that was not declared.
            OSError: If the rows in hand cannot be written; they stay in hand.
        """
        if unknown := set(row) - self.names:
            raise ValueError(
                f"metrics: {sorted(unknown)[0]!r} is no column; declared are "
                f"{', '.join(self.schema.names)}"
            )
        with self.guard:
            self.rows.append(dict(row))
            due = time.monotonic() - self.written >= SECONDS_PER_BATCH
        if due or len(self.rows) >= ROWS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand."""
        import pyarrow as pa

        with self.guard:
            if self.rows:
                batch = pa.RecordBatch.from_pylist(self.rows, schema=self.schema)
                self.end = append(self.file, packed(batch), end=self.end)
            self.rows, self.written = [], time.monotonic()

    def settle(self) -> None:
        """Write the rows in hand, and let no power cut take any."""
        self.flush()
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Write what is left and end the stream."""
        self.flush()
        append(self.file, END_OF_STREAM, end=self.end)
        os.fsync(self.file.fileno())
        self.file.close()


def segments(folder: Path) -> list[Path]:
    """The streams of a run's attempts, oldest first."""
    found = [path for path in (folder / "metrics").glob("*.arrows") if SEGMENT.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def read_segment(path: Path) -> pa.Table | None:
    """The whole batches of one attempt, mapped from its file; None if there are none yet.

    A batch that is being written, or was cut, is not there; nor is one that was damaged.
    """
    import pyarrow as pa

    schema: pa.Schema | None = None
    batches: list[pa.RecordBatch] = []
    try:
        opened(path).close()
        with pa.memory_map(os.fsencode(path)) as source:
            while True:
                try:
                    found = next_piece(source, schema)
                except DamagedPiece:
                    continue
                if isinstance(found, pa.Schema):
                    schema = found
                else:
                    batches.append(found)
    except (EOFError, pa.ArrowException, OSError):
        pass
    return pa.Table.from_batches(batches) if batches else None


def read_table(folder: Path, *, gaps: bool = False) -> pa.Table:
    """All steps of a run, each once; a later attempt wins from its first step on.

    Where the segments have been pruned, metrics.parquet has them.

    Args:
        folder: The run's.
        gaps: Leave out what is damaged or missing.

    Raises:
        DamagedRun: If rows are damaged or missing, and gaps are not wanted.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kept: list[pa.Table] = []
    first = None
    behind = steps_behind(folder)  # before the rows: those may grow meanwhile
    for path in reversed(segments(folder)):
        table = read_segment(path)
        if table is None or not len(table):
            continue
        if first is not None:
            # Steps rise within an attempt, so what is left of it is its beginning.
            table = table.slice(0, pc.sum(pc.less(table["step"], first)).as_py() or 0)
        if len(table):
            kept.append(table)
            first = table["step"][0].as_py()
    found = read_compacted(folder) if not kept else None
    if found is None:
        kept = kept or [schema().empty_table()]
        found = pa.concat_tables(reversed(kept), promote_options="default")
    if not gaps:
        check_steps(folder, found["step"].to_numpy(), behind)
    return found


def steps_behind(folder: Path) -> int:
    """Steps that the last checkpoint stands on; 0 before the first.

    Their rows were on the disk before it was.
    """
    counters = read_mapping(folder / "rack" / "manifest.json").get("counters")
    steps = counters.get("total_steps") if isinstance(counters, dict) else 0
    return steps if isinstance(steps, int) else 0


def check_steps(folder: Path, steps_N: Any, behind: int) -> None:
    """Raise unless every step is there once, in order, as far as the last checkpoint at least.

    Raises:
        DamagedRun: With the first step that is not.
    """
    wrong = (steps_N != range(1, len(steps_N) + 1)).nonzero()[0]
    if len(wrong) or len(steps_N) < behind:
        missing = int(wrong[0]) + 1 if len(wrong) else len(steps_N) + 1
        raise DamagedRun(
            f"run {folder.resolve().name}: metrics/ is damaged: the row of step {missing} is "
            "missing or not what was written; restore the folder from a copy of the run, or read "
            "what is left with run.metrics(gaps=True). The weights are not touched by this"
        )


def read_metrics(folder: Path, *, gaps: bool = False) -> pd.DataFrame:
    """All steps of a run as a frame: from metrics.parquet, or else from the segments.

    Raises:
        DamagedRun: As `read_table`.
    """
    table = read_compacted(folder)
    if table is None:
        table = read_table(folder, gaps=gaps)
    return table.to_pandas(ignore_metadata=True)


def read_compacted(folder: Path) -> pa.Table | None:
    """What metrics.parquet holds; None if it is not there, or not what was written."""
    import pyarrow as pa

    from stackwise.runs.arrow import read_parquet

    try:
        table = read_parquet(folder / "metrics.parquet")
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        return None
    written = (table.schema.metadata or {}).get(SEAL)
    table = table.replace_schema_metadata(None)
    return table if written in (None, _seal(table)) else None


def compact(folder: Path) -> None:
    """Write metrics.parquet, which says what the segments say and opens faster.

    Raises:
        DamagedRun: If they are damaged.
    """
    import pyarrow.parquet as pq

    table = read_table(folder)
    sealed = table.replace_schema_metadata({SEAL: _seal(table)})
    with replacing(folder / "metrics.parquet") as part:
        pq.write_table(sealed, part, row_group_size=1 << 16)


def _seal(table: pa.Table) -> bytes:
    """A hash of what a table says, however it lies in pieces."""
    digest = xxh3_128()
    for batch in table.combine_chunks().to_batches():
        digest.update(hash_of(batch).encode())
    return digest.hexdigest().encode()
