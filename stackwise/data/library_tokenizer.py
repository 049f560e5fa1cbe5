"""Tokenizers of the `tokenizers` library: the BPE that is trained here, and a user's own.

The library says which characters of the text each token covers. Several tokens of a byte-level BPE
can share one character, each with some of its bytes; there the bytes are counted from the token
itself.

Shapes: T tokens, V ids, C characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stackwise.data.errors import DataError, missing_package
from stackwise.data.files import first_line
from stackwise.data.tokenizer import Ids, byte_characters, decode_known

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

MOST_ENTRIES = 1 << 22  # as `rack.vocab`
MOST_GROWTH = 1000  # characters that rules of replacement may make of one
LONGEST_ENTRY = 1 << 14  # characters
CHARACTER_BOUNDS = (0x80, 0x800, 0x10000)  # code points from which UTF-8 takes one byte more


class LibraryTokenizer:
    """A tokenizer.json at work, with whatever would change or pad its ids turned off.

    Args:
        content: Text of the tokenizer.json.
        source: Where it came from, for messages.

    Raises:
        DataError: If the library is missing or cannot read the content.
    """

    def __init__(self, content: str, source: str) -> None:
        try:
            from tokenizers import Tokenizer as Library
        except ImportError:
            raise missing_package(source, "tokenizers") from None
        parsed, self._source = json.loads(content), source
        if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
            raise DataError(
                f"{source}: is not a tokenizer.json: it has no mapping 'model'; "
                "save one with the tokenizers library"
            )
        if any(_growth(parsed.get(part)) > MOST_GROWTH for part in ("normalizer", "decoder")):
            raise DataError(
                f"{source}: its rules make over {MOST_GROWTH} characters of one; take another"
            )
        try:
            parsed["truncation"] = parsed["padding"] = None
            if "dropout" in parsed["model"]:
                parsed["model"]["dropout"] = None  # random merges: not a function of the text
            self._library = Library.from_str(json.dumps(parsed))
        except BaseException as error:  # the library raises nothing more precise
            _check_theirs(error)
            raise DataError(
                f"{source}: is not a tokenizer.json: {first_line(error)}; "
                "save one with the tokenizers library"
            ) from None
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        if not vocabulary:
            raise DataError(f"{source}: the tokenizer has no entries; train it first")
        self.size = max(vocabulary.values()) + 1
        if self.size > MOST_ENTRIES:  # each has a row in every table, used or not
            raise DataError(
                f"{source}: its largest id is {self.size - 1}, and a rack's head has at most "
                f"{MOST_ENTRIES} entries; number its entries from 0 on"
            )
        if max(map(len, vocabulary)) > LONGEST_ENTRY:
            raise DataError(f"{source}: an entry has over {LONGEST_ENTRY} characters; take another")
        self._bytes_V = _token_bytes(parsed, vocabulary, self.size)
        self._unknown = _unknown_id(parsed["model"], vocabulary)

    def encode(self, text: str) -> Ids:
        """Ids of a text, (T,), without special ones added."""
        return np.array(self._encoded(text).ids, dtype=np.int64)

    def encode_counted(self, text: str) -> tuple[Ids, Ids]:
        """Ids of a text and the UTF-8 bytes that each stands for, both (T,)."""
        encoding = self._encoded(text)
        ids_T = np.array(encoding.ids, dtype=np.int64)
        if self._bytes_V is not None:
            count_T = self._bytes_V[ids_T]
            if count_T.sum() == len(text.encode()):
                return ids_T, count_T
        lossless = self.decode(ids_T) == text
        count_T = _covered_bytes(text, np.array(encoding.offsets).reshape(-1, 2), lossless)
        if self._unknown is not None and not lossless:
            count_T[ids_T == self._unknown] = 0
        return ids_T, count_T

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Text of ids; what is no text becomes U+FFFD.

        Raises:
            DataError: If the library cannot.
        """
        try:
            return decode_known(
                ids, self.size, lambda known: self._library.decode(known, skip_special_tokens=False)
            )
        except BaseException as error:
            _check_theirs(error)
            raise DataError(
                f"{self._source}: cannot decode: {first_line(error)}; take another tokenizer"
            ) from None

    def _encoded(self, text: str) -> Encoding:
        try:
            return self._library.encode(text, add_special_tokens=False)
        except BaseException as error:  # the library raises nothing more precise
            _check_theirs(error)
            raise DataError(
                f"{self._source}: cannot encode the text: {first_line(error)}; give the tokenizer "
                "an entry for unknown text, or take a byte-level one"
            ) from None

    def to_json(self) -> str:
        """The content of its tokenizer.json."""
        return self._library.to_str(pretty=True)

    def save(self, path: str | Path) -> None:
        """Write its tokenizer.json."""
        Path(path).write_text(self.to_json(), "utf-8")


def trained_bpe(texts: Iterator[str], entries: int) -> LibraryTokenizer:
    """Train a byte-level BPE (GPT-2's, arXiv 1508.07909 on bytes); equal texts, equal tokenizer.

    Args:
        texts: What to train on.
        entries: Ids, the 256 bytes included; fewer if the text has not that many pairs.

    Raises:
        DataError: If the library is missing.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise missing_package("data.tokenizer=bpe", "tokenizers") from None
    library: Library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=byte_characters(),
    )
    library.train_from_iterator(texts, trainer)
    return LibraryTokenizer(library.to_str(), "the trained BPE")


def _check_theirs(error: BaseException) -> None:
    """Raise what was not the library's: a panic of Rust, as at a hostile pattern, is no Exception.

    Raises:
        BaseException: As given.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


def _growth(rules: Any) -> float:
    """How many characters rules may make of one, at most, one rule after the other."""
    growth, waiting = 1.0, [rules]
    while waiting:
        rule = waiting.pop()
        if isinstance(rule, dict):
            grown = rule.get("content", rule.get("prepend"))
            if rule.get("type") in ("Replace", "Prepend") and isinstance(grown, str):
                pattern = rule.get("pattern")
                text = pattern.get("String") if isinstance(pattern, dict) else None
                growth *= max(1.0, len(grown) / len(text) if isinstance(text, str) and text else
                              len(grown))  # fmt: skip
            waiting += rule.values()
        elif isinstance(rule, list):
            waiting += rule
    return growth


def _token_bytes(parsed: Any, vocabulary: dict[str, int], size: int) -> Ids | None:
    """Bytes of each token of a byte-level tokenizer, (V,); None for other kinds."""
    if (parsed.get("decoder") or {}).get("type") != "ByteLevel":
        return None
    bytes_V = np.zeros(size, dtype=np.int64)
    for token, number in vocabulary.items():
        bytes_V[number] = len(token)
    for added in parsed.get("added_tokens") or ():
        bytes_V[added["id"]] = len(added["content"].encode())
    return bytes_V


def _unknown_id(model: Any, vocabulary: dict[str, int]) -> int | None:
    """The id that stands for whatever the vocabulary does not have."""
    if model.get("unk_id") is not None:
        return int(model["unk_id"])
    return vocabulary.get(model.get("unk_token") or "")


def _covered_bytes(text: str, span_T2: Ids, lossless: bool) -> Ids:
    """Bytes of the characters that each token is the first to cover, (T,).

    Where nothing is lost, characters between two tokens count for the later one, and those at the
    end for the last.
    """
    code_C = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width_C = 1 + sum((code_C >= bound).astype(np.int64) for bound in CHARACTER_BOUNDS)
    byte_at_C = np.concatenate([[0], np.cumsum(width_C)])
    end_T = np.maximum.accumulate(span_T2[:, 1])
    before_T = np.concatenate([[0], end_T])[:-1]
    if lossless and len(end_T):
        end_T[-1] = len(code_C)
        return byte_at_C[end_T] - byte_at_C[before_T]
    start_T = np.maximum(span_T2[:, 0], before_T)
    return byte_at_C[np.maximum(end_T, start_T)] - byte_at_C[start_T]
