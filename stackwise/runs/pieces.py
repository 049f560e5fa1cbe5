"""Rows of metrics as pieces of an Arrow stream, each with the hash of what it says.

A disk may give back a piece that it was never given: after a power cut its header may be there and
zeros behind it, and bits flip. So each record batch carries its XXH3 as a message's own metadata,
where every reader of Arrow streams passes over it; pieces of older runs have none and are taken as
they are. Which pieces make a run's metrics is in `metrics.py`; `following.py` reads on where it
stopped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from xxhash import xxh3_128

if TYPE_CHECKING:
    import pyarrow as pa

END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
SEAL = re.compile(rb"xxh3:([0-9a-f]{32})")


class DamagedPiece(ValueError):
    """Rows that are not what was written; what comes after them can be read."""


def packed(batch: pa.RecordBatch) -> bytes:
    """The bytes of a stream's next message."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch, custom_metadata={"seal": f"xxh3:{hash_of(batch)}"})
    head = len(batch.schema.serialize())
    return bytes(memoryview(sink.getvalue())[head : -len(END_OF_STREAM)])


def hash_of(batch: pa.RecordBatch) -> str:
    """Of what a batch says: 32 hex digits."""
    return xxh3_128(batch.serialize()).hexdigest()


def next_piece(source: Any, schema: pa.Schema | None) -> pa.Schema | pa.RecordBatch:
    """The next message of a stream: its schema, or rows that are what was written.

    Args:
        source: An Arrow file, at the beginning of a message.
        schema: The stream's; None before it was read.

    Raises:
        EOFError: At the stream's end.
        DamagedPiece: If it is rows, and not those that were written.
        ArrowException, OSError: If it is no message, or was cut.
    """
    import pyarrow as pa

    from stackwise.runs.arrow import batch_of, checked, whole

    message = whole(pa.ipc.read_message(source))
    if schema is None:
        return checked(pa.ipc.read_schema(message))
    if message.type != "record batch":
        raise pa.ArrowInvalid("no rows can stand here")
    sealed = SEAL.search(message.metadata)
    try:
        batch = batch_of(message, schema)
        right = sealed is None or sealed[1].decode() == hash_of(batch)
    except (pa.ArrowException, OSError) as error:
        raise DamagedPiece(str(error)) from None
    if not right:
        raise DamagedPiece("its hash differs")
    return batch
