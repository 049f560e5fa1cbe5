"""Unigram, bigram and compressors on held-out text: proper, finite, and right on known cases."""

import math

import numpy as np
import pytest

from stackwise.data.baselines import (
    baseline_lines,
    baselines,
    bigram,
    bigram_bits,
    compressors,
    counted,
    models,
    unigram_bits,
)
from stackwise.data.dataset import open_dataset
from stackwise.data.markov import MarkovParams, markov_entropy


def as_bytes(text):
    return np.frombuffer(text.encode(), dtype=np.uint8)


@pytest.mark.parametrize("text", ["a", "abracadabra", "the cat sat on the mat"])
def test_every_row_of_the_bigram_adds_up_to_one_and_is_positive(text):
    table = bigram(as_bytes(text))
    np.testing.assert_allclose(table.sum(1), 1, rtol=1e-12)
    assert (table > 0).all()


def test_unigram_and_bigram_agree_with_slow_counting():
    train, heldout = "abracadabra", "cabbage"
    n = len(train)

    def unigram(b):
        return (train.count(b) + 0.5) / (n + 128)

    def pair(a, b):
        followers = [train[i + 1] for i in range(n - 1) if train[i] == a]
        kinds = len(set(followers))
        if not followers:
            return unigram(b)
        return (followers.count(b) + kinds * unigram(b)) / (len(followers) + kinds)

    expected = -sum(math.log2(unigram(b)) for b in heldout) / len(heldout)
    assert unigram_bits(as_bytes(train), as_bytes(heldout)) == pytest.approx(expected, rel=1e-12)
    pairs = zip("a" + heldout, heldout, strict=False)
    expected = -sum(math.log2(pair(a, b)) for a, b in pairs) / len(heldout)
    assert bigram_bits(as_bytes(train), as_bytes(heldout)) == pytest.approx(expected, rel=1e-12)


def test_bytes_that_were_never_seen_cost_a_finite_number_of_bits():
    texts = as_bytes("aaaa" * 10), as_bytes("é漢z")
    for row in (*counted(*texts), *compressors(*texts)):
        assert 0 < row.bits_per_byte < math.inf


def test_a_chain_of_order_one_costs_the_bigram_its_entropy():
    """Excess: about 64 * 63 pairs / 2 * log2(n) / n bits, and the sampling error."""
    params = MarkovParams(order=1, symbols=8, size_bytes=400_000, seed=1)
    rows = {row.name: row.bits_per_byte for row in baselines(open_dataset(params))}
    entropy = markov_entropy(params)
    assert entropy - 0.03 < rows["bigram"] < entropy + 0.03 < rows["unigram"] < 3.001
    assert rows["constant"] == 8
    assert rows["xz alone"] > entropy and rows["bz2 alone"] > entropy


def test_text_seen_before_is_nearly_free_within_a_compressors_reach():
    """A copy of random bytes: xz sees back 100 kB, in matches of 273 bytes; zlib does not."""
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    rows = {row.name: row.bits_per_byte for row in compressors(noise, noise[:10_000])}
    assert rows["xz after training text"] < 0.6
    assert rows["zlib after training text"] > 7.9
    assert rows["xz alone"] > 7.9


def test_rows_are_computed_once(tmp_path, monkeypatch):
    dataset = open_dataset(MarkovParams(size_bytes=20_000), cache_dir=tmp_path)
    first = baselines(dataset, cache_dir=tmp_path)
    for function in ("counted", "compressors"):
        monkeypatch.setattr(f"stackwise.data.baselines.{function}", None)
    assert baselines(dataset, cache_dir=tmp_path) == first
    assert [row.name for row in first] == [
        "constant",
        "unigram",
        "bigram",
        "zlib alone",
        "zlib after training text",
        "bz2 alone",
        "bz2 after training text",
        "xz alone",
        "xz after training text",
    ]


def test_long_texts_are_cut_and_say_so(tmp_path, monkeypatch):
    """Also what xz may look back to follows from the cut texts, so that its memory is bounded."""
    monkeypatch.setattr("stackwise.data.baselines.MOST_BYTES", 1 << 20)
    monkeypatch.setattr("stackwise.data.baselines.MOST_HELDOUT_BYTES", 1 << 20)
    sizes = []
    monkeypatch.setattr("stackwise.data.baselines._compressors", lambda n: sizes.append(n) or {})
    params = MarkovParams(size_bytes=2_400_000, order=0)
    dataset = open_dataset(params, heldout_frac=0.5, cache_dir=tmp_path)
    rows = baselines(dataset, cache_dir=tmp_path)
    assert rows[1].note == (
        "byte counts, add one half; last 1 MiB of the training text; first 1 MiB of the held-out "
        "text"
    )
    assert sizes == [2 << 20]


def test_a_constant_predictor_pays_log2_v_per_token_in_bits_per_byte(tmp_path):
    """Tokens of a BPE stand for several bytes each, and there are more of them to choose from."""
    params = MarkovParams(size_bytes=60_000)
    dataset = open_dataset(params, "bpe:300", heldout_frac=0.2, cache_dir=tmp_path)
    tokens, size = dataset.heldout_windows().size, dataset.heldout_bytes().sum()
    assert dataset.tokenizer.size != 256
    row = models(dataset, cache_dir=tmp_path)[0]
    assert row.bits_per_byte == pytest.approx(tokens * math.log2(dataset.tokenizer.size) / size)
    assert row.note == f"every token equally likely, log2 {dataset.tokenizer.size} bits"


def test_what_is_printed_beside_a_result_needs_no_compressor(tmp_path, monkeypatch):
    monkeypatch.setattr("stackwise.data.baselines.compressors", None)
    params = MarkovParams(order=1, size_bytes=20_000)
    dataset = open_dataset(params, cache_dir=tmp_path)
    rows = models(dataset, cache_dir=tmp_path)
    assert baseline_lines(dataset, cache_dir=tmp_path) == (
        f"on the same text: constant 8.000, unigram {rows[1].bits_per_byte:.3f}, bigram "
        f"{rows[2].bits_per_byte:.3f}; entropy of the source {markov_entropy(params):.3f} "
        "bits per byte"
    )
