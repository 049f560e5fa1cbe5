"""Generative perplexity and entropy of samples, against closed forms."""

import itertools
import math

import numpy as np
import pytest

from stackwise.data.baselines import bigram_bits
from stackwise.data.markov import MarkovParams, markov_entropy, markov_text
from stackwise.sampling.quality import Chain, bigram_reference, markov_reference, quality

ORDERS = [0, 1, 2]


def chain(order):
    return markov_reference(MarkovParams(order=order, symbols=3, seed=1))


def words(length):
    return np.array(list(itertools.product(b"abc", repeat=length)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("length", [1, 2, 4])
def test_probabilities_of_all_words_sum_to_one(order, length):
    """Also of words that are shorter than a context."""
    p_N = np.exp(-chain(order)(words(length)).sum(1))
    assert p_N.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("length", [1, 4])
def test_the_expected_score_is_the_entropy_over_all_words(order, length):
    nats_N = chain(order)(words(length)).sum(1)
    entropy = (np.exp(-nats_N) * nats_N).sum()
    assert chain(order).expected_nats_per_token(length) * length == pytest.approx(entropy)


def test_long_samples_of_the_source_cost_its_entropy_rate():
    params = MarkovParams(order=2, symbols=4, seed=3)
    rate = markov_entropy(params) * math.log(2)
    assert markov_reference(params).expected_nats_per_token(10_000) == pytest.approx(rate, rel=1e-3)
    text = "".join(itertools.islice(markov_text(params), 4))[: 4 * 50_000]
    found = quality(
        np.frombuffer(text.encode(), np.uint8).reshape(50, -1), markov_reference(params)
    )
    # The cost of a token has a standard deviation of about 1 nat: 200,000 of them, four of theirs.
    assert found.nats_per_token == pytest.approx(rate, abs=4 / 200_000**0.5)
    assert found.perplexity == pytest.approx(math.exp(found.nats_per_token))
    assert found.impossible_frac == 0


def test_a_token_that_the_source_never_writes_is_counted_apart():
    reference = chain(2)
    found = quality(np.frombuffer(b"abcXabc", np.uint8)[None], reference)
    once = reference(np.frombuffer(b"abc", np.uint8)[None])
    assert found.impossible_frac == pytest.approx(1 / 7)
    assert found.nats_per_token == pytest.approx(once.mean()), "after it the chain begins anew"
    assert quality([[300, 300]], reference).perplexity == math.inf


def test_a_collapsed_sample_is_given_away_by_its_entropy():
    """The likeliest letter for ever beats the source's own score, with no entropy at all."""
    reference = Chain(np.array([1.0]), np.array([[0.8, 0.1, 0.1]]), np.arange(3))
    found = quality(np.zeros((4, 50), int), reference)
    assert found.nats_per_token < reference.expected_nats_per_token(50)
    assert found.entropy == found.pooled_entropy == 0


def test_entropy_is_that_of_the_counts():
    found = quality([[0, 0, 1, 1], [2, 2, 2, 2]], lambda ids: np.ones(np.shape(ids)))
    assert found.entropy == pytest.approx(math.log(2) / 2)
    assert found.pooled_entropy == pytest.approx(-(0.5 * math.log(0.25) + 0.5 * math.log(0.5)))
    assert found.perplexity == pytest.approx(math.e)


def test_the_bigram_is_that_of_the_baselines():
    train, other = (np.frombuffer(text, np.uint8) for text in (b"abracadabra" * 9, b"cabbage"))
    found = quality(other[None], bigram_reference(train))
    assert found.nats_per_token == pytest.approx(bigram_bits(train, other) * math.log(2))


def test_nothing_to_score_is_said():
    with pytest.raises(ValueError, match=r"ids_NT: shape \(0, 3\); give \(N, T\), with one token"):
        quality(np.zeros((0, 3)), chain(1))
    with pytest.raises(ValueError, match="train_U8: is empty; give the bytes"):
        bigram_reference(np.zeros(0))
