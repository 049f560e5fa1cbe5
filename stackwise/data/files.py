"""Local files as text: plain text, JSON lines, Parquet columns.

Readers yield pieces in order and never hold a whole file. Documents of JSON lines, Parquet and
Hugging Face data sets are put one after the other with an empty line between them.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from stackwise.data.errors import DataError, known, missing_package
from stackwise.jsontext import parsed

BETWEEN_DOCUMENTS = "\n\n"
BLOCK_BYTES = 1 << 20
ROWS_AT_ONCE = 1024
LONGEST_LINE = 300  # of another library's message


def text_pieces(path: Path, encoding: str) -> Iterator[str]:
    """A text file, decoded. Line ends stay as they are; a byte-order mark is dropped.

    Raises:
        DataError: At the first byte that is not in this encoding, with its offset.
    """
    decoder = _decoder(encoding)
    offset, first = 0, True
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK_BYTES)
            start = offset - len(decoder.getstate()[0])
            try:
                piece = decoder.decode(block, not block)
            except UnicodeDecodeError as error:
                raise _wrong_encoding(path, encoding, start + error.start, error) from None
            except UnicodeError as error:  # utf-16 and utf-32 without a byte-order mark
                raise DataError(
                    f"{path}: is not {encoding}: {first_line(error)}; "
                    f"name the file's byte order, such as encoding={encoding}-le"
                ) from None
            offset += len(block)
            yield piece.removeprefix("\ufeff") if first else piece
            first = first and not piece
            if not block:
                return


def jsonl_texts(path: Path, field: str) -> Iterator[str]:
    """The strings under `field`, one per line of JSON; empty lines are passed over.

    Raises:
        DataError: At the first line that is not UTF-8, not a JSON object, or has no such string.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _string(_json_object(path, number, line), field, f"{path}: line {number}")


def parquet_texts(path: Path, column: str) -> Iterator[str]:
    """The strings of one column.

    Raises:
        DataError: If pyarrow is missing, the file is not Parquet, or there is no such text column.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise missing_package("data.corpus=parquet", "pyarrow") from None
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a Parquet file: {first_line(error)}") from None
    with file:
        names = file.schema_arrow.names
        if column not in names:
            raise DataError(f"{path}: has no column {column!r}; its columns: {known(names)}")
        try:
            batches = file.iter_batches(ROWS_AT_ONCE, columns=[column])
            rows = (value for batch in batches for value in batch.column(0).to_pylist())
            for number, value in enumerate(rows, 1):
                yield as_text(value, f"{path}: row {number}, column {column!r}")
        except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
            raise DataError(f"{path}: is damaged: {first_line(error)}") from None


def joined(texts: Iterable[str]) -> Iterator[str]:
    """Documents with an empty line between them."""
    for number, text in enumerate(texts):
        if number:
            yield BETWEEN_DOCUMENTS
        yield text


def as_text(value: Any, place: str) -> str:
    """`value` if it is text that UTF-8 can hold.

    Raises:
        DataError: If it is not; `place` says where it stands.
    """
    if not isinstance(value, str):
        kind = "nothing (null)" if value is None else f"{type(value).__name__}"
        raise DataError(f"{place} holds {kind}, not text; name another, or leave such rows out")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{place} holds half a character (U+{ord(value[error.start]):04X}, a lone surrogate), "
            "which is not text; repair it or leave it out"
        ) from None
    return value


def first_line(error: BaseException) -> str:
    """An error in one line, for messages of other libraries, which repeat what they were given."""
    line = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def _string(record: dict[str, Any], field: str, place: str) -> str:
    if field not in record:
        raise DataError(f"{place} has no field {field!r}; its fields: {known(record)}")
    return as_text(record[field], f"{place}, field {field!r}")


def _json_object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = parsed(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: line {number} is not UTF-8 at its byte {error.start}; "
            "JSON is UTF-8: convert the file"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: line {number} is not JSON: {error.msg.removesuffix(' at')} "
            f"at column {error.colno}; "
            "every line must be one JSON object"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: line {number} holds {error}; leave it out") from None
    if not isinstance(record, dict):
        raise DataError(
            f"{path}: line {number} holds {type(record).__name__}, not a JSON object with fields"
        )
    return record


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    try:
        "".encode(encoding)  # refuses what is no text encoding, such as base64
        return codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise DataError(
            f"data.corpus.encoding: unknown encoding {encoding!r}; "
            "common ones: utf-8, utf-16, cp1252, latin-1, shift_jis, gb18030"
        ) from None


def _wrong_encoding(path: Path, encoding: str, offset: int, error: UnicodeDecodeError) -> DataError:
    with path.open("rb") as file:
        head = file.read(BLOCK_BYTES)
        file.seek(offset)
        byte = file.read(1)
    shown = f" (0x{byte[0]:02x})" if byte else ""
    return DataError(
        f"{path}: byte {offset}{shown} is not {encoding}: {error.reason}; "
        f"name the file's encoding, perhaps encoding={_guess(head, encoding)}"
    )


def _guess(head: bytes, encoding: str) -> str:
    """An encoding that the start of the file does not rule out."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head[:1000]:
        return "utf-16"
    likely = [name for name in ("utf-8", "cp1252", "latin-1") if name != encoding.lower()]
    return next(name for name in likely if name == "latin-1" or _decodes(head, name))


def _decodes(head: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True
