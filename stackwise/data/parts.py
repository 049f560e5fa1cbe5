"""The corpora of a mixture as one text: the training parts of all, then the held-out parts of all.

So a mixture is split, tokenized, hashed and scored like one corpus, and the last part of each of
its corpora is held out. Which of them a sample is read from is in `mixing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stackwise.data.corpora import Corpus
from stackwise.data.text import Text, heldout_start, segments, stored


@dataclass(frozen=True)
class Part:
    """One corpus of a mixture.

    Attributes:
        text: The corpus in the cache.
        train_bytes: Bytes of its training part, which comes first.
    """

    text: Text
    train_bytes: int

    @property
    def heldout_bytes(self) -> int:
        """Bytes of its held-out part."""
        return len(self.text.mapped()) - self.train_bytes


def part_of(corpus: Corpus, heldout_frac: float, cache: Path) -> Part:
    """One corpus of a mixture, split."""
    text = stored(corpus, cache)
    return Part(text, heldout_start(text.mapped(), heldout_frac))


def together(name: str, parts: Sequence[Part]) -> Corpus:
    """The training parts of a mixture, then its held-out parts.

    Its entropy is that of the held-out text for someone who knows which corpus each part is of.
    """

    def pieces() -> Iterator[str]:
        for part in parts:
            yield from segments(part.text.mapped(), 0, part.train_bytes)
        for part in parts:
            yield from segments(part.text.mapped(), part.train_bytes, len(part.text.mapped()))

    known = [part.text.entropy_bits_per_byte for part in parts]
    sizes = [part.heldout_bytes for part in parts]
    bits = [n * each for n, each in zip(sizes, known, strict=True) if each is not None]
    entropy = sum(bits) / sum(sizes) if len(bits) == len(parts) else None
    stamp = f"mix {[(part.text.sha256, part.train_bytes) for part in parts]} {known}"
    return Corpus(name, pieces, stamp, None if entropy is None else lambda: entropy)
