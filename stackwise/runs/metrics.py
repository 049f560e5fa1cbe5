"""Metrics: the numbers of every step, as Arrow streams, one per attempt.

Rows are written in batches, at least once a second; a batch that was cut by a kill is simply not
there. An attempt that resumes starts a new file, and from its first step on it wins.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
    "block_grad_norms": "list",
}


def schema() -> pa.Schema:
    """The columns of a metrics file."""
    import pyarrow as pa

    kinds = {"int64": pa.int64(), "float64": pa.float64(), "list": pa.list_(pa.float64())}
    return pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


class MetricLog:
    """Collects rows and appends them to one attempt's stream."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        path.parent.mkdir(exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self.schema = schema()
        self.file = path.open("wb")
        self.stream = pa.ipc.new_stream(self.file, self.schema)
        self.written = time.monotonic()

    def write(self, row: dict[str, Any]) -> None:
        """Take one row; the file has it within a second of the next."""
        self.rows.append(row)
        due = time.monotonic() - self.written >= SECONDS_PER_BATCH
        if due or len(self.rows) >= ROWS_PER_BATCH:
            self.flush()

    def flush(self) -> None:
        """Write the rows in hand."""
        import pyarrow as pa

        if self.rows:
            self.stream.write_batch(pa.RecordBatch.from_pylist(self.rows, schema=self.schema))
            self.file.flush()
        self.rows, self.written = [], time.monotonic()

    def close(self) -> None:
        """Write what is left and end the stream."""
        self.flush()
        self.stream.close()
        self.file.close()


def read_stream(path: Path) -> pa.Table:
    """The whole batches of one attempt."""
    import pyarrow as pa

    batches = []
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            for batch in stream:
                batches.append(batch)
    except (pa.ArrowInvalid, OSError):
        pass  # the batch that was being written is not there yet
    return pa.Table.from_batches(batches, schema=schema())


def read_metrics(folder: Path) -> pd.DataFrame:
    """All steps of a run, each once; a later attempt wins from its first step on."""
    import pandas as pd

    compact = folder / "metrics.parquet"
    if compact.exists():
        return pd.read_parquet(compact)
    frames = [read_stream(p).to_pandas() for p in sorted((folder / "metrics").glob("*.arrows"))]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return schema().empty_table().to_pandas()
    kept = []
    for i, frame in enumerate(frames):
        first = min((int(later["step"].iloc[0]) for later in frames[i + 1 :]), default=None)
        kept.append(frame if first is None else frame[frame["step"] < first])
    return pd.concat(kept, ignore_index=True)
