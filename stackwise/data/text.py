"""A corpus as one UTF-8 file in the cache, named by the hash of its bytes.

So the text is fixed once and for all: where its held-out part begins, what a tokenizer is trained
on and what is tokenized are byte ranges of one file, and equal text has one name wherever it came
from. Not here: what reads sources (`corpora.py`) and what makes ids (`dataset.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stackwise.data.cache import draft, facts_of, key_of, publish
from stackwise.data.corpora import Corpus
from stackwise.data.errors import DataError

Bytes = NDArray[np.uint8]

FILE = "text.utf8"
SEGMENT_BYTES = 1 << 18
NEWLINE = 0x0A


@dataclass(frozen=True)
class Text:
    """A corpus in the cache.

    Attributes:
        name: Of the corpus.
        path: The UTF-8 file.
        sha256: Of its bytes, 64 hex digits.
        entropy_bits_per_byte: Of the source, where it is known exactly.
    """

    name: str
    path: Path
    sha256: str
    entropy_bits_per_byte: float | None

    def mapped(self) -> Bytes:
        """The bytes, memory-mapped, read-only."""
        return np.memmap(self.path, dtype=np.uint8, mode="r")


def stored(corpus: Corpus, cache: Path) -> Text:
    """The corpus as a file in the cache, made now or found there.

    Raises:
        DataError: If the source cannot be read, or holds no text.
    """
    known = None if corpus.stamp is None else cache / "sources" / key_of(corpus.stamp)
    facts = None if known is None else facts_of(known)
    if facts is None or facts_of(cache / "text" / facts["sha256"]) is None:
        facts = {"sha256": _written(corpus, cache), "entropy": _entropy(corpus)}
        if known is not None:
            with draft(cache, "sources") as made:
                publish(made, known, facts)
    path = cache / "text" / facts["sha256"] / FILE
    return Text(corpus.name, path, facts["sha256"], facts["entropy"])


def _written(corpus: Corpus, cache: Path) -> str:
    """Write the text and return its hash."""
    sha, size = hashlib.sha256(), 0
    with draft(cache, "text") as made:
        with (made / FILE).open("wb") as file:
            for piece in _read(corpus):
                block = piece.encode()
                sha.update(block)
                size += file.write(block)
        if not size:
            raise DataError(f"{corpus.name}: holds no text at all; name another source")
        publish(made, cache / "text" / sha.hexdigest(), {"size_bytes": size})
    return sha.hexdigest()


def _read(corpus: Corpus) -> Iterator[str]:
    """The text of a corpus; what its own disk refuses is not the cache's."""
    try:
        yield from corpus.pieces()
    except OSError as error:
        raise DataError(f"{corpus.name}: cannot be read: {error}; mend or replace it") from error


def _entropy(corpus: Corpus) -> float | None:
    return None if corpus.entropy is None else corpus.entropy()


def heldout_start(text_U8: Bytes, heldout_frac: float) -> int:
    """The byte at which the held-out part begins: the last `heldout_frac` of the text, by bytes.

    If that falls inside a character, the character is held out whole.
    """
    start = len(text_U8) - round(len(text_U8) * heldout_frac)
    return character_start(text_U8, start)


def character_start(text_U8: Bytes, place: int) -> int:
    """The start of the character that byte `place` belongs to."""
    while 0 < place < len(text_U8) and text_U8[place] & 0xC0 == 0x80:
        place -= 1
    return place


def segments(text_U8: Bytes, start: int, end: int) -> Iterator[str]:
    """The text of a byte range in parts that fit memory, cut after line ends where there are any.

    Tokenizers work on one segment at a time, so the cuts belong to the data: they depend on the
    bytes alone.
    """
    while start < end:
        stop = min(start + SEGMENT_BYTES, end)
        if stop < end:
            ends = np.flatnonzero(text_U8[start:stop] == NEWLINE)
            stop = start + int(ends[-1]) + 1 if len(ends) else character_start(text_U8, stop)
        yield text_U8[start:stop].tobytes().decode()
        start = stop
