"""What simple models and compressors get on the held-out text, in bits per byte.

    constant       every token equally likely: log2 V bits each, with bytes as tokens 8 per byte
    unigram        p(b) = (n(b) + 1/2) / (n + 128), counts from the training text (Krichevsky and
                   Trofimov 1981)
    bigram         p(b|a) = (n(ab) + d(a) p(b)) / (n(a) + d(a)), d(a) the number of different bytes
                   seen after a (Witten and Bell 1991, method C, interpolated)
    zlib, bz2, xz  alone: compressed held-out text
                   after the training text: size(training + held-out) - size(training)

The models give every byte a probability over 0 and their rows add up to 1, so their code lengths
are proper and finite. A compressor has only so much memory: zlib sees back 32 kB, bz2 what shares
its 900 kB block, xz here all of it. Of very long texts only a part is used; the notes say which.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stackwise.data.cache import cache_folder, draft, facts_of, key_of, publish

if TYPE_CHECKING:
    from stackwise.data.dataset import Dataset

VERSION = 2
MOST_BYTES = 1 << 25  # of training text that is used: xz takes a minute and 0.4 GB for it
MOST_HELDOUT_BYTES = 1 << 23  # of held-out text
Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Baseline:
    """One row of the table.

    Attributes:
        name: `unigram`, `xz after training text`, ...
        bits_per_byte: On the held-out text.
        note: How it was come by.
    """

    name: str
    bits_per_byte: float
    note: str


def baselines(dataset: Dataset, *, cache_dir: str | Path | None = None) -> tuple[Baseline, ...]:
    """All rows, computed once per text and split: seconds for a few megabytes.

    Only the last 32 MiB of a longer training text are used, and the first 8 MiB of a longer
    held-out text; the notes say so.
    """
    rows = _kept("compressors", compressors, dataset, cache_dir)
    return (*models(dataset, cache_dir=cache_dir), *rows)


def models(dataset: Dataset, *, cache_dir: str | Path | None = None) -> tuple[Baseline, ...]:
    """The rows of `constant`, `unigram` and `bigram` alone: a moment, also for a long text."""
    rows = _kept("models", counted, dataset, cache_dir)
    return (constant(dataset), *rows)


def baseline_lines(dataset: Dataset, *, cache_dir: str | Path | None = None) -> str:
    """What is printed beside every result: the simple models, and the entropy where it is known."""
    rows = models(dataset, cache_dir=cache_dir)
    found = ", ".join(f"{row.name} {row.bits_per_byte:.3f}" for row in rows)
    entropy = dataset.entropy_bits_per_byte
    known = "" if entropy is None else f"; entropy of the source {entropy:.3f}"
    return f"on the same text: {found}{known} bits per byte"


def constant(dataset: Dataset) -> Baseline:
    """Every token equally likely, over the held-out windows that racks are scored on."""
    size, tokens = dataset.tokenizer.size, dataset.n_windows * dataset.seq_len
    bits = tokens * float(np.log2(size)) / float(dataset.heldout_bytes().sum())
    return Baseline("constant", bits, f"every token equally likely, log2 {size} bits")


Measure = Callable[[Bytes, Bytes], tuple[Baseline, ...]]


def _kept(
    kind: str, measure: Measure, dataset: Dataset, cache_dir: str | Path | None
) -> tuple[Baseline, ...]:
    """Rows from the cache, or measured now and put there."""
    cache = Path(cache_dir) if cache_dir is not None else cache_folder()
    key = key_of("baselines", VERSION, kind, dataset.text.sha256, dataset.train_bytes)
    folder = cache / "baselines" / key
    facts = facts_of(folder)
    if facts is None:
        text_U8 = dataset.text.mapped()
        train_U8, heldout_U8 = text_U8[: dataset.train_bytes], text_U8[dataset.train_bytes :]
        cuts = [
            f"; last {MOST_BYTES >> 20} MiB of the training text" * (len(train_U8) > MOST_BYTES),
            f"; first {MOST_HELDOUT_BYTES >> 20} MiB of the held-out text"
            * (len(heldout_U8) > MOST_HELDOUT_BYTES),
        ]
        rows = [
            asdict(Baseline(row.name, row.bits_per_byte, row.note + "".join(cuts)))
            for row in measure(train_U8[-MOST_BYTES:], heldout_U8[:MOST_HELDOUT_BYTES])
        ]
        with draft(cache, "baselines") as made:
            facts = publish(made, folder, {"rows": rows})
    return tuple(Baseline(**row) for row in facts["rows"])


def counted(train_U8: Bytes, heldout_U8: Bytes) -> tuple[Baseline, ...]:
    """The rows of the models that count bytes, for two texts, neither empty."""
    train, heldout = np.asarray(train_U8), np.asarray(heldout_U8)
    return (
        Baseline("unigram", unigram_bits(train, heldout), "byte counts, add one half"),
        Baseline("bigram", bigram_bits(train, heldout), "byte pairs, Witten-Bell"),
    )


def compressors(train_U8: Bytes, heldout_U8: Bytes) -> tuple[Baseline, ...]:
    """The rows of the compressors, for two texts, neither empty."""
    train, heldout = np.asarray(train_U8).tobytes(), np.asarray(heldout_U8).tobytes()
    rows = []
    for name, (size, note) in _compressors(len(train) + len(heldout)).items():
        after, alone = size(train + heldout) - size(train), size(heldout)
        rows.append(Baseline(f"{name} alone", 8 * alone / len(heldout), note))
        rows.append(Baseline(f"{name} after training text", 8 * after / len(heldout), note))
    return tuple(rows)


def unigram_bits(train_U8: Bytes, heldout_U8: Bytes) -> float:
    """Bits per byte under independent bytes."""
    return float(-np.log2(_unigram(train_U8)[heldout_U8]).mean())


def bigram_bits(train_U8: Bytes, heldout_U8: Bytes) -> float:
    """Bits per byte given the byte before; the first one follows the training text."""
    p_AB = bigram(train_U8)
    before_U8 = np.concatenate([train_U8[-1:], heldout_U8[:-1]])
    return float(-np.log2(p_AB[before_U8, heldout_U8]).mean())


def _unigram(train_U8: Bytes) -> NDArray[np.float64]:
    count_B = np.bincount(train_U8, minlength=256)
    return (count_B + 0.5) / (count_B.sum() + 128)


def bigram(train_U8: Bytes) -> NDArray[np.float64]:
    """Probability of each byte after each byte, (256, 256), rows adding up to 1."""
    pairs = train_U8[:-1].astype(np.int64) * 256 + train_U8[1:]
    count_AB = np.bincount(pairs, minlength=256 * 256).reshape(256, 256)
    seen_A1 = (count_AB > 0).sum(axis=1, keepdims=True)
    total_A1 = count_AB.sum(axis=1, keepdims=True)
    unigram_B = _unigram(train_U8)
    p_AB = (count_AB + seen_A1 * unigram_B) / np.maximum(total_A1 + seen_A1, 1)
    return np.where(total_A1 > 0, p_AB, unigram_B)


def _compressors(size: int) -> dict[str, tuple[Callable[[bytes], int], str]]:
    """Name to (compressed size, note)."""
    reach = max(1 << 16, 1 << (size - 1).bit_length())
    chain = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": reach}]
    return {
        "zlib": (lambda data: len(zlib.compress(data, 9)), "level 9; sees back 32 kB only"),
        "bz2": (lambda data: len(bz2.compress(data, 9)), "level 9; blocks of 900 kB"),
        "xz": (
            lambda data: len(lzma.compress(data, lzma.FORMAT_XZ, filters=chain)),
            "level 9 extreme; sees back to the start",
        ),
    }
