"""Unigram, bigram and compressors on held-out text: proper, finite, and right on known cases."""

import math

import numpy as np
import pytest

from stackwise.data.baselines import baselines, bigram, bigram_bits, measured, unigram_bits
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
    for row in measured(as_bytes("aaaa" * 10), as_bytes("é漢z")):
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
    rows = {row.name: row.bits_per_byte for row in measured(noise, noise[:10_000])}
    assert rows["xz after training text"] < 0.6
    assert rows["zlib after training text"] > 7.9
    assert rows["xz alone"] > 7.9


def test_rows_are_computed_once(tmp_path, monkeypatch):
    dataset = open_dataset(MarkovParams(size_bytes=20_000), cache_dir=tmp_path)
    first = baselines(dataset, cache_dir=tmp_path)
    monkeypatch.delattr("stackwise.data.baselines.measured")
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


def test_long_training_text_is_cut_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("stackwise.data.baselines.MOST_BYTES", 1 << 20)
    dataset = open_dataset(MarkovParams(size_bytes=1_200_000, order=0), cache_dir=tmp_path)
    monkeypatch.setattr("stackwise.data.baselines._compressors", lambda size: {})
    rows = baselines(dataset, cache_dir=tmp_path)
    assert rows[1].note == "byte counts, add one half; last 1 MiB of the training text"
