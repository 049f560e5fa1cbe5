"""A user's own text as tokens that can be shown: cut, readable, each with what it stands for.

A token of a byte tokenizer may be a part of a character. Tokens that make text only together are
one `Piece`; it is shown as text where all of them can be seen, and in parts where some are hidden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stackwise_widgets.views.markup import REPLACEMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stackwise.data.tokenizer import Tokenizer

MOST = 200  # tokens that are shown
LETTERS = 20 * MOST  # of the text that are read for them
LONGEST = 8  # tokens that may be needed for one character
SURROGATES = re.compile("[\ud800-\udfff]")
NAMED = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\x7f": "␡"}


class Text(NamedTuple):
    """The part of a text that is shown.

    Attributes:
        ids_T: Its tokens.
        pieces: The same, grouped to characters.
        note: What was left out; empty if nothing was.
    """

    ids_T: NDArray[np.int64]
    pieces: list[Piece]
    note: str


class Piece(NamedTuple):
    """Tokens that are text together.

    Attributes:
        first: Place of the first of them.
        text: What they decode to.
        parts: What stands for each of them alone.
    """

    first: int
    text: str
    parts: tuple[str, ...]


def read_text(text: str, tokenizer: Tokenizer, most: int = MOST) -> Text:
    """The first tokens of a text. What no encoder takes, halves of characters, is U+FFFD."""
    whole = SURROGATES.sub(REPLACEMENT, text)
    ids_T = np.asarray(tokenizer.encode(whole[:LETTERS]), dtype=np.int64)
    shown_T = ids_T[:most]
    note = ""
    if len(shown_T) < len(ids_T) or len(whole) > LETTERS:
        note = f"Only the first {len(shown_T)} tokens of {len(whole):,} characters are shown."
    return Text(shown_T, list(_pieces(shown_T.tolist(), tokenizer)), note)


def _pieces(ids: Sequence[int], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Group tokens until they are text; what never is stands alone."""
    at, decode = 0, tokenizer.decode
    while at < len(ids):
        ends = range(at + 1, min(at + LONGEST, len(ids)) + 1)
        end = next((e for e in ends if REPLACEMENT not in decode(ids[at:e])), at + 1)
        ids_here = ids[at:end]
        yield Piece(at, decode(ids_here), tuple(part_said(i, tokenizer) for i in ids_here))
        at = end


def part_said(token: int, tokenizer: Tokenizer) -> str:
    """What stands for one token: its text, or its number where it is a part of a character."""
    text = tokenizer.decode([token])
    if REPLACEMENT not in text:
        return readable(text)
    return f"{token:02x}" if tokenizer.size == 256 > token else f"#{token}"


def readable(text: str) -> str:
    """Text in which spaces and what does not print can be seen."""
    return "".join(map(_letter, text)) or "∅"


def _letter(letter: str) -> str:
    if letter in NAMED:
        return NAMED[letter]
    if ord(letter) < 32:
        return chr(0x2400 + ord(letter))
    return letter if letter.isprintable() else f"U+{ord(letter):04X}"
