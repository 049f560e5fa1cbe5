"""Tokenizers: from text to ids and back, with the true bytes that each id stands for.

`bytes` has 256 ids, one per byte. `bpe` is a byte-level BPE trained on the training part of the
corpus. `json` is a user's own tokenizer.json. All are saved in the format of the `tokenizers`
library, so that others can read them; the work with that library is in `library_tokenizer.py`.

Shapes: T tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stackwise.choice import Choice, Params, find
from stackwise.data.errors import DataError, readable
from stackwise.jsontext import parsed

Ids = NDArray[np.int64]
Texts = Callable[[], Iterator[str]]

MOST_BYTES = 128 << 20  # of a tokenizer.json; those of large models have 30 MB
REPLACEMENT = "\ufffd"


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    @property
    def size(self) -> int:
        """Number of ids: they run from 0 to size - 1."""
        ...

    def encode(self, text: str) -> Ids:
        """Ids of a text, (T,), without any special ones added."""
        ...

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        """Ids of a text, and how many of its UTF-8 bytes each stands for, both (T,).

        The counts add up to the bytes of the text, unless the tokenizer loses part of it: what it
        drops, or turns into its unknown token, counts for nothing.
        """
        ...

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Text of ids; what is no text becomes U+FFFD."""
        ...

    def to_json(self) -> str:
        """The content of its tokenizer.json."""
        ...

    def save(self, path: str | Path) -> None:
        """Write its tokenizer.json; `read_tokenizer` reads it back."""
        ...


class BytesParams(Params):
    """The text's UTF-8 bytes."""

    kind: Literal["bytes"] = "bytes"


class BpeParams(Params):
    """A byte-level BPE, trained on the training part of the corpus."""

    kind: Literal["bpe"] = "bpe"
    entries: int = Field(1024, ge=257, le=1 << 20, description="ids, the 256 bytes included")


class JsonParams(Params):
    """A user's own tokenizer.json."""

    kind: Literal["json"] = "json"
    path: str = Field(min_length=1, description="the file; relative to the data folder")


class ByteTokenizer:
    """One id per byte of UTF-8."""

    size = 256

    def encode(self, text: str) -> Ids:
        """Ids of a text, (T,)."""
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        """Ids of a text, and one byte for each."""
        ids_T = self.encode(text)
        return ids_T, np.ones_like(ids_T)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Text of ids; broken characters and ids over 255 become U+FFFD."""
        return decode_known(
            ids, self.size, lambda known: bytes(known).decode("utf-8", errors="replace")
        )

    def to_json(self) -> str:
        """A byte-level BPE without a single merge, whose ids are the bytes."""
        vocabulary = {character: byte for byte, character in enumerate(byte_characters())}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        return json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {**level, "use_regex": False},
                "post_processor": None,
                "decoder": {**level, "use_regex": False},
                "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
            },
            indent=1,
        )

    def save(self, path: str | Path) -> None:
        """Write its tokenizer.json."""
        Path(path).write_text(self.to_json(), "utf-8")


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level BPE.

    Printable Latin-1 stands for itself; the other bytes follow from U+0100 on. Source: GPT-2's
    `bytes_to_unicode`; a test compares it with the `tokenizers` library.
    """
    itself = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in itself else next(others)) for byte in range(256)]


def decode_known(ids: Sequence[int] | Ids, size: int, decode: Callable[[list[int]], str]) -> str:
    """Decode runs of ids below `size`; each other id (a head may have more rows) is U+FFFD."""
    runs = groupby(np.asarray(ids, dtype=np.int64).tolist(), key=lambda i: 0 <= i < size)
    return "".join(
        decode(list(run)) if known else REPLACEMENT * len(list(run)) for known, run in runs
    )


def make_bytes(params: BytesParams, data_dir: Path, train: Texts) -> Tokenizer:
    """The byte tokenizer."""
    return ByteTokenizer()


def make_bpe(params: BpeParams, data_dir: Path, train: Texts) -> Tokenizer:
    """Train a byte-level BPE."""
    from stackwise.data.library_tokenizer import trained_bpe

    return trained_bpe(train(), params.entries)


def make_json(params: JsonParams, data_dir: Path, train: Texts) -> Tokenizer:
    """Read a user's tokenizer.json."""
    return read_tokenizer(readable(data_dir, params.path, "data.tokenizer.path"))


# A builder is a function (parameters, data folder, texts to train on) -> Tokenizer.
TOKENIZERS: dict[str, Choice] = {
    "bytes": Choice(make_bytes, BytesParams),
    "bpe": Choice(make_bpe, BpeParams),
    "json": Choice(make_json, JsonParams),
}


def load_tokenizer(params: Params, data_dir: str | Path = ".") -> Tokenizer:
    """A tokenizer that needs no corpus.

    Raises:
        DataError: If its file cannot be read, or it would have to be trained first.
    """
    if params.choice == "bpe":
        raise DataError(
            "data.tokenizer=bpe is trained on a corpus: take open_dataset(...).tokenizer"
        )
    return find(TOKENIZERS, params.choice, "tokenizer").build(
        params, Path(data_dir), lambda: iter(())
    )


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Read a tokenizer.json: one that `save` wrote, or any other of the `tokenizers` library.

    Raises:
        DataError: If the file is missing, is not a tokenizer.json, or the library is missing.
    """
    path = readable(Path(), str(path), "the tokenizer's path")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES} bytes long")
        text = path.read_bytes().decode()
        content = parsed(text)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}; name a tokenizer.json") from None
    if content == json.loads(ByteTokenizer().to_json()):
        return ByteTokenizer()
    from stackwise.data.library_tokenizer import LibraryTokenizer

    return LibraryTokenizer(text, str(path))
