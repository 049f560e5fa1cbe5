"""A Markov chain's entropy rate against closed forms, and what learned n-grams get on its text."""

from itertools import islice

import numpy as np
import pytest

from stackwise.data.corpora import CORPORA, first_characters
from stackwise.data.dataset import open_dataset
from stackwise.data.markov import (
    ALPHABET,
    MarkovParams,
    markov_entropy,
    markov_text,
    stationary,
    transitions,
)

SMALL = MarkovParams(order=2, symbols=4, sharpness=2.0, size_bytes=400_000, seed=5)


def symbols_of(params):
    text = "".join(first_characters(markov_text(params), params.size_bytes))
    return np.array([ALPHABET.index(character) for character in text])


def contexts(ids, order, symbols):
    """Number of the last `order` symbols before each position from `order` on."""
    number = np.zeros(len(ids) - order, dtype=np.int64)
    for i in range(order):
        number = number * symbols + ids[i : len(ids) - order + i]
    return number


def ngram_bits(train, test, order, symbols, add=0.5):
    """Bits of each symbol of `test` under an additive model of that order learned on `train`."""
    count = np.full((symbols**order, symbols), add)
    np.add.at(count, (contexts(train, order, symbols), train[order:]), 1)
    p = count / count.sum(1, keepdims=True)
    return -np.log2(p[contexts(test, order, symbols), test[order:]])


def test_equal_followers_give_log2_of_the_alphabet():
    for order, symbols in ((0, 2), (1, 16), (3, 8)):
        params = MarkovParams(order=order, symbols=symbols, sharpness=0)
        assert markov_entropy(params) == pytest.approx(np.log2(symbols), rel=1e-12)


def test_two_states_agree_with_the_closed_form():
    """pi = (b, a) / (a + b) for flip probabilities a, b; h = pi . (H2(a), H2(b))."""
    for seed in range(5):
        params = MarkovParams(order=1, symbols=2, sharpness=1.0, seed=seed)
        (_, a), (b, _) = transitions(params)
        binary = [-(p * np.log2(p) + (1 - p) * np.log2(1 - p)) for p in (a, b)]
        expected = (b * binary[0] + a * binary[1]) / (a + b)
        assert markov_entropy(params) == pytest.approx(expected, rel=1e-11)


def test_the_stationary_distribution_is_the_eigenvector_of_the_chain_over_contexts():
    params = MarkovParams(order=2, symbols=5, seed=3)
    follow = transitions(params)
    dense = np.zeros((25, 25))
    for context in range(25):
        for symbol in range(5):
            dense[context, (context * 5 + symbol) % 25] += follow[context, symbol]
    values, vectors = np.linalg.eig(dense.T)
    pi = np.real(vectors[:, np.argmax(np.real(values))])
    np.testing.assert_allclose(stationary(follow), pi / pi.sum(), atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_no_learned_ngram_goes_below_the_entropy(order):
    """The held-out mean has a sampling error; four of them is the tolerance."""
    ids = symbols_of(SMALL)
    train, test = ids[:300_000], ids[300_000:]
    bits = ngram_bits(train, test, order, SMALL.symbols)
    error = bits.std() / np.sqrt(len(bits))
    assert bits.mean() > markov_entropy(SMALL) - 4 * error


def test_an_ngram_that_saw_the_test_text_does_go_below():
    """The failing control: the check above has the power to see a leak."""
    ids = symbols_of(SMALL)[:4000]
    bits = ngram_bits(ids, ids, 6, SMALL.symbols, add=0.01)
    assert bits.mean() < markov_entropy(SMALL) - 4 * bits.std() / np.sqrt(len(bits))


def test_an_ngram_of_the_right_order_converges_to_the_entropy():
    """Excess of add-1/2 over the truth is about (free parameters / 2) log2(n) / n bits."""
    ids = symbols_of(SMALL)
    bits = ngram_bits(ids[:300_000], ids[300_000:], SMALL.order, SMALL.symbols)
    excess = 4**2 * 3 / 2 * np.log2(300_000) / 300_000
    error = bits.std() / np.sqrt(len(bits))
    assert abs(bits.mean() - markov_entropy(SMALL)) < excess + 4 * error


def test_longer_text_starts_with_the_shorter_one():
    short = "".join(first_characters(markov_text(SMALL), 1000))
    long = "".join(first_characters(markov_text(SMALL), 200_000))
    assert long.startswith(short) and len(long) == 200_000


def test_another_seed_is_another_text():
    texts = {next(islice(markov_text(SMALL.replace(seed=s)), 1))[:500] for s in range(4)}
    assert len(texts) == 4


def test_the_dataset_states_the_entropy():
    dataset = open_dataset(SMALL, seq_len=64)
    assert dataset.entropy_bits_per_byte == markov_entropy(SMALL)
    assert dataset.provenance()["entropy_bits_per_byte"] == markov_entropy(SMALL)
    assert len(dataset.train_text) + len(dataset.heldout_text) == SMALL.size_bytes


def test_a_table_that_is_too_large_is_refused():
    with pytest.raises(ValueError, match=r"symbols\^\(order \+ 1\) = 4294967296 > 1048576"):
        CORPORA["markov"].params(order=7, symbols=16)
