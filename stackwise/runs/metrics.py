"""Metrics: the numbers of every step, as Arrow streams, one per attempt.

Rows are appended in batches, each in one piece; a batch that a crash cut is simply not there. An
attempt that resumes starts a new file, and from its first step on it wins. What happened between
the numbers is in `events.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stackwise.atomic import append, replacing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Rows = TypeVar("Rows", "pa.RecordBatch", "pa.Table")

ROWS_PER_BATCH = 512
SECONDS_PER_BATCH = 1.0
MOST_VALUES_PER_BYTE = 64  # of a Parquet file: norms of a thousand blocks of which one trains
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
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
        self.file = path.open("xb", buffering=0)
        append(self.file, self.schema.serialize())
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
                append(self.file, batch.serialize())
            self.rows, self.written = [], time.monotonic()

    def close(self) -> None:
        """Write what is left and end the stream."""
        self.flush()
        append(self.file, END_OF_STREAM)
        self.file.close()


def segments(folder: Path) -> list[Path]:
    """The streams of a run's attempts, oldest first."""
    found = [path for path in (folder / "metrics").glob("*.arrows") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def read_segment(path: Path) -> pa.Table | None:
    """The whole batches of one attempt, mapped from its file; None if there are none yet."""
    import pyarrow as pa

    batches = []
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batches.append(checked(batch))
    except (pa.ArrowException, OSError):
        pass  # the batch that is being written, or was cut, is not there
    return pa.Table.from_batches(batches) if batches else None


def checked(rows: Rows) -> Rows:
    """Rows whose lengths and offsets are what their columns hold.

    Arrow believes what a file says of them, and reads beyond its end or ends the process.

    Raises:
        pyarrow.ArrowInvalid: If they are not, a column is of a kind that none is written as, or a
            row has no step.
    """
    import pyarrow as pa

    rows.validate(full=True)
    try:
        odd = [field.name for field in rows.schema if not _is_ours(field.type)]
        names = rows.schema.names
    except UnicodeDecodeError:
        raise pa.ArrowInvalid("a column whose name is no text") from None
    if odd or len(set(names)) < len(names) or "step" not in names:
        raise pa.ArrowInvalid(f"columns that cannot be ours: {', '.join(odd or names)[:80]}")
    if rows.schema.field("step").type != pa.int64() or rows.column("step").null_count:
        raise pa.ArrowInvalid("a row without its step")
    return rows


def _is_ours(kind: pa.DataType) -> bool:
    """Whether a column is of a kind that is written: see `schema`."""
    import pyarrow as pa

    flat = kind in (pa.int64(), pa.float64())
    return flat or bool(pa.types.is_list(kind) and kind.value_type == pa.float64())


def read_compacted(path: Path) -> pa.Table:
    """What metrics.parquet holds.

    Raises:
        OSError: If it is not there.
        pyarrow.ArrowInvalid: If it is damaged, or says that more is in it than there can be.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        said, size = file.metadata, path.stat().st_size
        groups = [said.row_group(group) for group in range(said.num_row_groups)]
        columns = range(said.num_columns)
        values = sum(group.column(at).num_values for group in groups for at in columns)
        if said.num_rows > size or values > MOST_VALUES_PER_BYTE * size:
            raise pa.ArrowInvalid(f"{said.num_rows} rows cannot lie in {size} bytes")
        return checked(file.read())


def read_table(folder: Path) -> pa.Table:
    """All steps of a run, each once; a later attempt wins from its first step on."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept: list[pa.Table] = []
    first = None
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
    if not kept:
        return schema().empty_table()
    return pa.concat_tables(reversed(kept), promote_options="default")


def read_metrics(folder: Path) -> pd.DataFrame:
    """All steps of a run as a frame: from metrics.parquet, or else from the segments."""
    import pyarrow as pa

    try:
        found = read_compacted(folder / "metrics.parquet")
    except (OSError, pa.ArrowException):  # not there, or damaged: the segments hold all
        found = read_table(folder)
    return found.to_pandas(ignore_metadata=True)


def compact(folder: Path) -> None:
    """Write metrics.parquet, which says what the segments say and opens faster."""
    import pyarrow.parquet as pq

    with replacing(folder / "metrics.parquet") as part:
        pq.write_table(read_table(folder), part, row_group_size=1 << 16)
