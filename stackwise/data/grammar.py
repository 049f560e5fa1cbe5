"""Text from a random probabilistic grammar, whose entropy per byte is known exactly.

Every rule of a category A starts with a word that no other rule of A starts with:

    A -> word                           a leaf
    A -> (word  B [C]  word)            a phrase; it closes with its own word, however long it is

Such a grammar (a *simple* grammar: Korenjak and Hopcroft, 1966) is read from left to right without
ever looking ahead: the next word names the rule. So each sentence has one derivation, no sentence
is the start of another, and the entropy of sentences is the entropy of derivations. With M[A, B]
the expected number of B's in a rule of A, h[A] the entropy of A's choice, and w[A] the expected
bytes of its words, separators included,

    H = h + M H        L = w + M L        entropy per byte = H[start] / L[start]

(Grenander 1967 for H; sentences are independent, so the rate is the renewal-reward ratio). An
ambiguous grammar would have no such closed form: its strings have less entropy than derivations.

A sentence is a phrase, and every category below it has the same expected number of children,
`branching` < 1. So a child grows into 1 / (1 - branching) phrases and leaves on average, and every
derivation ends.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, product
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stackwise.choice import Params
from stackwise.data.uniform import Use, endless, uniform

Float = NDArray[np.float64]

START = 0
WORDS = ["".join(pair) for pair in product("bdfghjklmnprstvwz", "aeiou")]
PIECE_BYTES = 1 << 16


class GrammarParams(Params):
    """A random probabilistic grammar."""

    kind: Literal["pcfg"] = "pcfg"
    categories: int = Field(8, ge=1, le=256, description="categories besides the sentence")
    rules: int = Field(24, ge=2, le=64, description="rules of each category, half of them leaves")
    branching: float = Field(
        0.75, ge=0, le=0.95, description="expected children of a rule; higher: deeper sentences"
    )
    sharpness: float = Field(
        1.0, ge=0, le=4, description="0: all rules equally likely; higher: more predictable"
    )
    size_bytes: int = Field(4_000_000, ge=1, le=1 << 36, description="length of the text")
    seed: int = Field(0, ge=0, lt=1 << 31, description="of the grammar and of the text")


@dataclass(frozen=True)
class Rule:
    """One way to write a category: `word`, or `(word children word)`."""

    probability: float
    word: str
    children: tuple[int, ...]

    @property
    def own_bytes(self) -> int:
        """Bytes of its words, each with the space or line end after it."""
        return len(self.word) + 1 if not self.children else 2 * (len(self.word) + 2)


Grammar = tuple[tuple[Rule, ...], ...]


def random_grammar(params: GrammarParams) -> Grammar:
    """The rules of each category, drawn from the seed; the first category is the sentence."""
    return tuple(_category(params, number) for number in range(params.categories + 1))


def _category(params: GrammarParams, number: int) -> tuple[Rule, ...]:
    """Phrases and leaves in the proportion that gives `branching`; a sentence has no leaves."""
    size = params.rules
    u = uniform(params.seed, Use.GRAMMAR_RULES, 2 * number, 4 * size).reshape(4, size)
    phrases = size if number == START else size // 2
    children = [
        tuple((1 + u[2 : 3 + (u[1, i] < 0.5), i] * params.categories).astype(int).tolist())
        if i < phrases
        else ()
        for i in range(size)
    ]
    weight = (-np.log(u[0])) ** params.sharpness
    phrase, leaf = weight[:phrases] / weight[:phrases].sum(), weight[phrases:]
    per_phrase = sum(p * len(c) for p, c in zip(phrase, children, strict=False))
    mass = 1.0 if number == START else params.branching / per_phrase
    probability = [*(mass * phrase), *((1 - mass) * leaf / leaf.sum())]
    words = _shuffled(WORDS, params.seed, 2 * number + 1)
    return tuple(map(Rule, map(float, probability), words, children))


def _shuffled(items: list[str], seed: int, number: int) -> list[str]:
    order = np.argsort(uniform(seed, Use.GRAMMAR_RULES, number, len(items)), kind="stable")
    return [items[i] for i in order]


def sentence_entropy_bits(grammar: Grammar) -> float:
    """Expected bits of information in a sentence."""
    h_A = [-sum(p * np.log2(p) for r in rules if (p := r.probability) > 0) for rules in grammar]
    return float(_expected(grammar, h_A)[START])


def sentence_length_bytes(grammar: Grammar) -> float:
    """Expected bytes of a sentence, its line end included."""
    w_A = [sum(rule.probability * rule.own_bytes for rule in rules) for rules in grammar]
    return float(_expected(grammar, w_A)[START])


def grammar_entropy(grammar: Grammar) -> float:
    """Entropy of the text, bits per byte."""
    return sentence_entropy_bits(grammar) / sentence_length_bytes(grammar)


def _expected(grammar: Grammar, own_A: list[float]) -> Float:
    """Solve x = own + M x: the expectation over a whole derivation of what each rule adds."""
    M_AA = np.zeros((len(grammar), len(grammar)))
    for category, rules in enumerate(grammar):
        for rule in rules:
            for child in rule.children:
                M_AA[category, child] += rule.probability
    return np.linalg.solve(np.eye(len(grammar)) - M_AA, np.array(own_A))


def grammar_text(grammar: Grammar, seed: int) -> Iterator[str]:
    """Sentences, one a line, in pieces and without end."""
    numbers = endless(seed, Use.GRAMMAR_TEXT)
    bounds = [list(accumulate(rule.probability for rule in rules))[:-1] for rules in grammar]
    lines: list[str] = []
    size = 0
    while True:
        lines.append(_sentence(grammar, bounds, numbers))
        size += len(lines[-1])
        if size >= PIECE_BYTES:
            yield "".join(lines)
            lines, size = [], 0


def _sentence(grammar: Grammar, bounds: list[list[float]], numbers: Iterator[float]) -> str:
    """One derivation, written out from left to right."""
    words: list[str] = []
    left: list[int | str] = [START]
    while left:
        item = left.pop()
        if isinstance(item, str):
            words.append(item)
            continue
        rule = grammar[item][bisect(bounds[item], next(numbers))]
        words.append(f"({rule.word}" if rule.children else rule.word)
        if rule.children:
            left.append(f"{rule.word})")
            left.extend(reversed(rule.children))
    return " ".join(words) + "\n"
