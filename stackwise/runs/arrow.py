"""Arrow streams and Parquet files of a run that may be a stranger's, as far as they can be ours.

Ours are columns of whole numbers, floats and lists of floats, not compressed; in Parquet with
Snappy. Anything else could claim to be larger than any memory: a million million rows of nothing
are a few bytes. Lists are validated before they are looked into. What is no such file raises
`pyarrow.ArrowInvalid`, as a damaged one does; rows, and which of them count, are in `metrics.py`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from stackwise.bounded import opened

Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)
MOST_COLUMNS = 1000
LEAST_ROW_BYTES = 4  # of a step's random floats in Parquet; ours take over 40
MOST_VALUES_PER_BYTE = 64  # of a Parquet file: norms of a thousand blocks of which one trains
COMPRESSIONS = {"SNAPPY", "UNCOMPRESSED"}
RECORD_BATCH_COMPRESSION, MESSAGE_HEADER = 3, 2  # numbers of fields in Arrow's flatbuffers


def checked(schema: pa.Schema) -> pa.Schema:
    """A schema, if its columns are of kinds that a row of metrics has."""
    try:
        odd, names = [each.name for each in schema if not is_ours(each.type)], schema.names
    except UnicodeDecodeError:
        raise pa.ArrowInvalid("a column whose name is no text") from None
    if odd or len(names) > MOST_COLUMNS or len(set(names)) < len(names):
        raise pa.ArrowInvalid("columns that are none of metrics")
    if "step" not in names or schema.field("step").type != pa.int64():
        raise pa.ArrowInvalid("rows without their steps")
    return schema.remove_metadata()


def is_ours(kind: pa.DataType) -> bool:
    """Whether a column is of a kind that is written, whatever a list's items are called."""
    if pa.types.is_list(kind):
        return bool(kind.value_type == pa.float64())
    return kind in (pa.int64(), pa.float64())


def validated(rows: Rows) -> Rows:
    """Rows whose lengths and offsets are what their columns hold.

    Arrow believes what a file says of them, and reads beyond its end or ends the process.
    """
    rows.validate(full=True)
    if rows.column("step").null_count:
        raise pa.ArrowInvalid("a row without its step")
    return rows


def batch_of(message: pa.Message, schema: pa.Schema) -> pa.RecordBatch:
    """A batch, its lists validated."""
    if is_compressed(message):
        raise pa.ArrowInvalid("a batch that is none of ours")
    return validated(pa.ipc.read_record_batch(message, schema))


def whole(message: pa.Message) -> pa.Message:
    """A message, if there is one."""
    if message is None:
        raise pa.ArrowInvalid("no message")
    return message


def is_compressed(message: pa.Message) -> bool:
    """Whether a batch says that its body is compressed."""
    data = memoryview(message.metadata)
    try:
        (root,) = struct.unpack_from("<I", data, 0)
        at = _field(data, root, MESSAGE_HEADER)
        header = at + struct.unpack_from("<I", data, at)[0]
        return bool(_field(data, header, RECORD_BATCH_COMPRESSION))
    except struct.error:
        raise pa.ArrowInvalid("a message that is damaged") from None


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table lies; 0 if it is not there."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise struct.error
    (size,) = struct.unpack_from("<H", data, vtable)
    at = 4 + 2 * number
    place = struct.unpack_from("<H", data, vtable + at)[0] if at + 2 <= size else 0
    return table + place if place else 0


def read_parquet(path: Path) -> pa.Table:
    """The table of a Parquet file, with what its writer says of it as metadata.

    Raises:
        FileNotFoundError: If it is not there.
        pa.ArrowInvalid, OSError: If it is damaged, or none of ours.
    """
    with opened(path) as file, pq.ParquetFile(pa.PythonFile(file, mode="r")) as found:
        facts, size = found.metadata, path.stat().st_size
        schema = checked(found.schema_arrow)
        chunks = [
            facts.row_group(group).column(column)
            for group in range(facts.num_row_groups)
            for column in range(facts.num_columns)
        ]
        rows = facts.num_rows
        counted = sum(facts.row_group(group).num_rows for group in range(facts.num_row_groups))
        if rows != counted or not 0 <= rows * LEAST_ROW_BYTES <= size + 4096:
            raise pa.ArrowInvalid("more rows than it has bytes for")
        if any(chunk.compression not in COMPRESSIONS for chunk in chunks):
            raise pa.ArrowInvalid("compressed otherwise than ours")
        if sum(chunk.num_values for chunk in chunks) > MOST_VALUES_PER_BYTE * size:
            raise pa.ArrowInvalid("more values than it has bytes for")
        table = found.read(use_threads=False).cast(schema)
        said = found.schema_arrow.metadata
    return validated(table).replace_schema_metadata(said)
