"""The grammar's entropy per byte against enumeration, against parsing, and against n-grams."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from stackwise.data.corpora import first_characters
from stackwise.data.dataset import open_dataset
from stackwise.data.grammar import (
    START,
    GrammarParams,
    Rule,
    grammar_entropy,
    grammar_text,
    random_grammar,
    sentence_entropy_bits,
    sentence_length_bytes,
)

PARAMS = GrammarParams(size_bytes=400_000, seed=2)
TINY = (
    (Rule(0.7, "a", (1,)), Rule(0.3, "b", (1, 1))),
    (Rule(0.15, "c", (1,)), Rule(0.45, "a", ()), Rule(0.4, "d", ())),
)


def strings(grammar, category, depth):
    """(string, probability) of every derivation at most `depth` deep."""
    for rule in grammar[category]:
        if not rule.children:
            yield rule.word, rule.probability
        elif depth:
            inner = [list(strings(grammar, child, depth - 1)) for child in rule.children]
            for parts in product(*inner):
                words = " ".join(text for text, _ in parts)
                p = rule.probability * math.prod(p for _, p in parts)
                yield f"({rule.word} {words} {rule.word})", p


def bits_of(grammar, line):
    """Bits of one sentence, read from left to right: the next word names the rule."""
    words = iter(line.split(" "))

    def read(category):
        word = next(words)
        is_phrase = word.startswith("(")
        rule = next(
            r
            for r in grammar[category]
            if r.word == word.lstrip("(") and bool(r.children) == is_phrase
        )
        bits = -math.log2(rule.probability) + sum(read(child) for child in rule.children)
        if is_phrase:
            assert next(words) == f"{rule.word})"
        return bits

    bits = read(START)
    assert next(words, None) is None
    return bits


def test_enumerating_every_sentence_gives_the_same_entropy_and_length():
    """Depth 12 leaves 0.15^11 of each child unseen: errors far below the tolerance."""
    found = list(strings(TINY, START, 12))
    mass = sum(p for _, p in found)
    assert mass == pytest.approx(1, abs=1e-8)
    assert max(Counter(text for text, _ in found).values()) == 1  # unambiguous
    assert sentence_entropy_bits(TINY) == pytest.approx(
        -sum(p * math.log2(p) for _, p in found), abs=1e-6
    )
    assert sentence_length_bytes(TINY) == pytest.approx(
        sum(p * (len(text) + 1) for text, p in found), abs=1e-6
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rules", [2, 7, 64])
def test_random_grammars_are_unambiguous_and_end(rules, seed):
    params = GrammarParams(categories=5, rules=rules, branching=0.9, seed=seed)
    grammar = random_grammar(params)
    for number, category in enumerate(grammar):
        assert len({rule.word for rule in category}) == rules
        assert sum(rule.probability for rule in category) == pytest.approx(1)
        children = sum(rule.probability * len(rule.children) for rule in category)
        assert number == START or children == pytest.approx(0.9)
        assert all(0 < child <= 5 for rule in category for child in rule.children)


def test_the_text_costs_its_entropy_when_read_with_its_own_grammar():
    """Ratio of two means: the error is that of (bits - h * bytes) per sentence."""
    grammar = random_grammar(PARAMS)
    lines = "".join(first_characters(grammar_text(grammar, 2), 400_000)).split("\n")[:-1]
    bits = np.array([bits_of(grammar, line) for line in lines])
    sizes = np.array([len(line) + 1 for line in lines])
    h = grammar_entropy(grammar)
    error = (bits - h * sizes).std() / np.sqrt(len(lines)) / sizes.mean()
    assert abs(bits.sum() / sizes.sum() - h) < 4 * error
    assert error < 0.01 * h


@pytest.mark.parametrize("order", [1, 2, 4])
def test_no_learned_ngram_goes_below_the_entropy(order):
    """Add 1/2 over 32 characters, more than the text has: the code lengths are proper."""
    grammar = random_grammar(PARAMS)
    text = "".join(first_characters(grammar_text(grammar, 2), 300_000))
    counts, totals = Counter(), Counter()
    for i in range(order, 200_000):
        counts[text[i - order : i + 1]] += 1
        totals[text[i - order : i]] += 1
    bits = [
        -math.log2((counts[text[i - order : i + 1]] + 0.5) / (totals[text[i - order : i]] + 16))
        for i in range(200_000, 300_000)
    ]
    assert np.mean(bits) > grammar_entropy(grammar)


def test_longer_text_starts_with_the_shorter_one():
    grammar = random_grammar(PARAMS)
    short = "".join(first_characters(grammar_text(grammar, 0), 1000))
    assert "".join(first_characters(grammar_text(grammar, 0), 150_000)).startswith(short)


def test_the_dataset_states_the_entropy():
    dataset = open_dataset(PARAMS, seq_len=64)
    assert dataset.entropy_bits_per_byte == grammar_entropy(random_grammar(PARAMS))
    assert 0.1 < dataset.entropy_bits_per_byte < 2
