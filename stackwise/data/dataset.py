"""Token ids on disk: packed training samples and held-out windows.

    corpus -> text in the cache -> [ training part | held-out part ] -> ids -> samples of T tokens

The last part of the text is held out and nothing is ever trained on it, the tokenizer neither. A
sample is T tokens in a row and a row has no gaps: only what is left at the very end is not used.
Which samples a batch holds is in `batches.py`.

Shapes: B samples, N windows, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackwise.choice import Params, find, parse
from stackwise.data.cache import cache_folder, draft, facts_of, key_of, publish
from stackwise.data.corpora import CORPORA
from stackwise.data.errors import DataError, readable
from stackwise.data.parts import Part, part_of, together
from stackwise.data.text import Bytes, Text, heldout_start, segments, stored
from stackwise.data.tokenizer import (
    TOKENIZERS,
    ByteTokenizer,
    JsonParams,
    Tokenizer,
    read_tokenizer,
)

FORMAT = 1  # raise it when the same text and tokenizer give other files
Ids = NDArray[np.int64]
Stored = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Tokens:
    """A text as ids.

    Attributes:
        train: Ids of the training part, memory-mapped, in the smallest dtype that holds them.
        heldout: Ids of the held-out part.
        heldout_bytes: True bytes of text that each held-out id stands for; None: one each.
        sha256: Of the ids.
        lossless: Whether the held-out ids decode to the held-out text.
        edges: Where the parts of a mixture begin and end in the training ids; none of one corpus.
    """

    train: Stored
    heldout: Stored
    heldout_bytes: Stored | None
    sha256: str
    lossless: bool
    edges: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A corpus, tokenized, split and packed.

    Attributes:
        text: The corpus in the cache.
        train_bytes: Bytes of text in the training part, which comes first.
        tokenizer: From text to ids and back.
        tokens: The ids.
        seq_len: Tokens per sample, T.
        parts: Of a mixture: its corpora. `text` has the training parts of all, then the held-out
            parts of all.
    """

    text: Text
    train_bytes: int
    tokenizer: Tokenizer
    tokens: Tokens
    seq_len: int
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        """Of the corpus."""
        return self.text.name

    @property
    def fingerprint(self) -> str:
        """64 hex digits: equal ones mean the same text, split and ids, on any machine."""
        parts = [[part.text.sha256, part.train_bytes] for part in self.parts]
        mixed = [parts] if parts else []
        return key_of(FORMAT, self.text.sha256, self.train_bytes, self.tokens.sha256, *mixed)

    @property
    def entropy_bits_per_byte(self) -> float | None:
        """Exact entropy of the source: no model scores below it in expectation. None: unknown."""
        return self.text.entropy_bits_per_byte

    @property
    def n_samples(self) -> int:
        """Training samples."""
        return len(self.tokens.train) // self.seq_len

    def samples(self, ids: Sequence[int] | Ids) -> Ids:
        """Training samples by number, 0 to n_samples - 1, as (B, T)."""
        return _rows(self.tokens.train, self.seq_len)[np.asarray(ids)].astype(np.int64)

    def part_rows(self, number: int) -> range:
        """The training samples that lie wholly in one part of a mixture."""
        start, end = self.tokens.edges[number : number + 2]
        return range(-(-start // self.seq_len), end // self.seq_len)

    @property
    def n_windows(self) -> int:
        """Held-out windows."""
        return len(self.tokens.heldout) // self.seq_len

    def heldout_windows(self, numbers: Sequence[int] | Ids | None = None) -> Ids:
        """Held-out windows, (N, T): some by number, or all in the order of the text."""
        rows = _rows(self.tokens.heldout, self.seq_len)
        return (rows if numbers is None else rows[np.asarray(numbers)]).astype(np.int64)

    def heldout_bytes(self, numbers: Sequence[int] | Ids | None = None) -> Ids:
        """True bytes of text in each held-out window, (N,): of some by number, or of all.

        With what follows the last window they add up to the held-out text, unless the tokenizer
        loses part of it.
        """
        chosen = slice(None) if numbers is None else np.asarray(numbers)
        if self.tokens.heldout_bytes is None:
            return np.full(self.n_windows, self.seq_len, dtype=np.int64)[chosen]
        rows = _rows(self.tokens.heldout_bytes, self.seq_len)
        return rows[chosen].sum(axis=1, dtype=np.int64)

    @property
    def train_text(self) -> str:
        """The training part."""
        return self.text.mapped()[: self.train_bytes].tobytes().decode()

    @property
    def heldout_text(self) -> str:
        """The held-out part."""
        return self.text.mapped()[self.train_bytes :].tobytes().decode()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its figures should know."""
        if self.tokens.lossless:
            return ()
        counted, size = self.tokens.heldout_bytes, len(self.text.mapped()) - self.train_bytes
        kept = len(self.tokens.heldout) if counted is None else int(counted.sum(dtype=np.int64))
        return (
            f"the tokenizer does not give back the text: bits per byte count {kept} of the {size} "
            "held-out bytes, and compare only with the same tokenizer",
        )

    def provenance(self) -> dict[str, Any]:
        """What a run writes down about its data; no path, nothing of this machine."""
        return {
            "corpus": self.name,
            "fingerprint": self.fingerprint,
            "text_sha256": self.text.sha256,
            "train_bytes": self.train_bytes,
            "heldout_bytes": len(self.text.mapped()) - self.train_bytes,
            "train_tokens": len(self.tokens.train),
            "heldout_tokens": len(self.tokens.heldout),
            "samples": self.n_samples,
            "tokenizer_size": self.tokenizer.size,
            "entropy_bits_per_byte": self.entropy_bits_per_byte,
            "notes": list(self.notes),
            **({"corpora": self._parts_read()} if self.parts else {}),
        }

    def _parts_read(self) -> list[dict[str, Any]]:
        return [
            {
                "corpus": part.text.name,
                "text_sha256": part.text.sha256,
                "train_bytes": part.train_bytes,
                "heldout_bytes": part.heldout_bytes,
                "samples": len(self.part_rows(number)),
            }
            for number, part in enumerate(self.parts)
        ]


def open_dataset(
    corpus: Params | str | Mapping[str, Any],
    tokenizer: Params | str | Mapping[str, Any] = "bytes",
    *,
    seq_len: int = 128,
    heldout_frac: float = 0.05,
    data_dir: str | Path = ".",
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Open a corpus as ids. The first time it is read and tokenized; later it is only mapped.

    Args:
        corpus: An entry of `CORPORA`: parameters, a name, `"text:PATH"` or a mapping.
        tokenizer: An entry of `TOKENIZERS`, likewise.
        seq_len: Tokens per sample, 1 or more.
        heldout_frac: Last part of the text, by bytes, that is held out, in (0, 1).
        data_dir: Folder in which relative paths are looked up.
        cache_dir: Where prepared data is kept; None: `$STACKWISE_CACHE`, or the platform's place.

    Raises:
        DataError: If the corpus or the tokenizer cannot be read, or a part of the text is shorter
            than one sample.
        ValueError: If a name is unknown or a parameter out of range.
    """
    if seq_len < 1 or not 0 < heldout_frac < 1:
        raise ValueError(
            f"seq_len={seq_len}, heldout_frac={heldout_frac}: the first must be 1 or more, "
            "the second between 0 and 1"
        )
    corpus = parse(CORPORA, corpus, "data.corpus", "kind")
    tokenizer = parse(TOKENIZERS, tokenizer, "data.tokenizer", "kind")
    cache = Path(cache_dir) if cache_dir is not None else cache_folder()
    source = find(CORPORA, corpus.choice, "corpus").build(corpus, Path(data_dir))
    parts = tuple(part_of(member, heldout_frac, cache) for member in source.members)
    text = stored(together(source.name, parts) if parts else source, cache)
    start = sum(p.train_bytes for p in parts) or heldout_start(text.mapped(), heldout_frac)
    cuts = tuple(accumulate(part.train_bytes for part in parts))[:-1]
    codec, tokens = _tokenized(text, start, tokenizer, Path(data_dir), cache, cuts)
    dataset = Dataset(text, start, codec, tokens, seq_len, parts)
    _check_lengths(dataset, heldout_frac)
    return dataset


def _check_lengths(dataset: Dataset, heldout_frac: float) -> None:
    """Raise unless each part holds at least one sample."""
    size, T = len(dataset.text.mapped()), dataset.seq_len
    parts = {
        f"the training part ({dataset.train_bytes} of {size} bytes)": dataset.tokens.train,
        f"the held-out part (data.heldout_frac={heldout_frac} of {size} bytes)": (
            dataset.tokens.heldout
        ),
    }
    for part, ids in parts.items():
        if len(ids) < T:
            raise DataError(
                f"{dataset.name}: {part} is {len(ids)} tokens, shorter than one sample of "
                f"data.seq_len={T}; take a longer text, lower data.seq_len, or split it otherwise"
            )
    for number, member in enumerate(dataset.parts):
        if not dataset.part_rows(number):
            raise DataError(
                f"{dataset.name}: the training part of {member.text.name} "
                f"({member.train_bytes} bytes) "
                f"holds no whole sample of data.seq_len={T}; take a longer text, lower "
                "data.seq_len, or leave it out of the mixture"
            )


def _tokenized(
    text: Text, start: int, params: Params, data_dir: Path, cache: Path, cuts: tuple[int, ...]
) -> tuple[Tokenizer, Tokens]:
    """The ids of both parts, made now or found in the cache. Bytes need no file of their own.

    No token goes across `cuts`, the bytes at which the corpora of a mixture meet.
    """
    if params.choice == "bytes":
        text_U8, edges = text.mapped(), (0, *cuts, start) if cuts else ()
        return ByteTokenizer(), Tokens(text_U8[:start], text_U8[start:], None, "bytes", True, edges)
    mixed = [cuts] if cuts else []
    key = key_of(FORMAT, text.sha256, start, _identity(params, data_dir), *mixed)
    folder = cache / "tokens" / key
    facts = facts_of(folder)
    if facts is None:
        with draft(cache, "tokens") as made:
            facts = publish(
                made, folder, _write_tokens(made, text, (0, *cuts, start), params, data_dir)
            )
    return read_tokenizer(folder / "tokenizer.json"), Tokens(
        train=_mapped(folder / "train.ids", facts["dtype"]),
        heldout=_mapped(folder / "heldout.ids", facts["dtype"]),
        heldout_bytes=_mapped(folder / "heldout.bytes", "uint32"),
        sha256=facts["sha256"],
        lossless=facts["lossless"],
        edges=tuple(facts["edges"]) if cuts else (),
    )


def _identity(params: Params, data_dir: Path) -> dict[str, Any]:
    """What decides a tokenizer, its text aside: a file counts by content, not by name."""
    if not isinstance(params, JsonParams):
        return params.model_dump(mode="json")
    path = readable(data_dir, params.path, "data.tokenizer.path")
    return {"kind": "json", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _write_tokens(
    folder: Path, text: Text, cuts: tuple[int, ...], params: Params, data_dir: Path
) -> dict[str, Any]:
    """Train or read the tokenizer, write the ids of both parts, and return the facts of them.

    Args:
        folder: Where they are written.
        text: The text.
        cuts: Bytes at which its training part, and the corpora in it, begin and end.
        params: The tokenizer's.
        data_dir: Where its file is looked up.
    """
    text_U8, start, edges = text.mapped(), cuts[-1], [0]

    def train() -> Iterator[str]:
        return (piece for cut in pairwise(cuts) for piece in segments(text_U8, *cut))

    tokenizer = find(TOKENIZERS, params.choice, "tokenizer").build(params, data_dir, train)
    tokenizer.save(folder / "tokenizer.json")
    dtype = np.min_scalar_type(tokenizer.size - 1)
    sha = hashlib.sha256()
    with (folder / "train.ids").open("wb") as file:
        for cut in pairwise(cuts):
            for segment in segments(text_U8, *cut):
                _append(file, sha, tokenizer.encode(segment).astype(dtype))
            edges.append(file.tell() // dtype.itemsize)
    lossless = _write_heldout(folder, text_U8, start, tokenizer, dtype, sha)
    facts = {"dtype": dtype.name, "sha256": sha.hexdigest(), "lossless": lossless}
    return facts | ({"edges": edges} if len(edges) > 2 else {})


def _write_heldout(
    folder: Path, text_U8: Bytes, start: int, tokenizer: Tokenizer, dtype: np.dtype[Any], sha: Any
) -> bool:
    """Write ids and byte counts of the held-out part; whether they give back the text."""
    lossless = True
    with (
        (folder / "heldout.ids").open("wb") as ids_file,
        (folder / "heldout.bytes").open("wb") as bytes_file,
    ):
        for segment in segments(text_U8, start, len(text_U8)):
            ids_T, count_T = tokenizer.encode_counted(segment)
            lossless = lossless and tokenizer.decode(ids_T) == segment
            _append(ids_file, sha, ids_T.astype(dtype))
            bytes_file.write(count_T.astype(np.uint32).tobytes())
    return lossless


def _append(file: Any, sha: Any, ids_T: Stored) -> None:
    block = ids_T.tobytes()
    sha.update(block)
    file.write(block)


def _mapped(path: Path, dtype: str) -> Stored:
    """A file of numbers, memory-mapped, read-only; an empty one is an empty array."""
    if not path.stat().st_size:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _rows(ids: Stored, seq_len: int) -> Stored:
    """Rows of `seq_len` in order, without copying; what is left over is dropped."""
    count = len(ids) // seq_len
    return ids[: count * seq_len].reshape(count, seq_len)
