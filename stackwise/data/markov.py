"""Text from a Markov chain, whose entropy per byte is known exactly.

A chain of order k over S symbols has a row of probabilities for each of its S^k contexts. With its
stationary distribution pi over contexts, its entropy rate is

    h = sum over contexts c of pi(c) * H(row c)                 bits per symbol

(Cover and Thomas, Elements of Information Theory, theorem 4.2.4, for the chain over contexts). A
symbol is one ASCII character, so h is per byte. The first context is drawn from pi, so the text is
stationary from its first byte on. No model can score below h in expectation.
"""

from __future__ import annotations

import string
from bisect import bisect
from collections.abc import Iterator
from itertools import chain, islice
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from stackwise.choice import Params
from stackwise.data.errors import DataError
from stackwise.data.uniform import Use, endless, uniform

Float = NDArray[np.float64]

ALPHABET = string.ascii_lowercase + " " + string.ascii_uppercase + string.digits + "."
LARGEST_TABLE = 1 << 20
STILL = 1e-13  # probability that one more step would move, in all
MOST_STEPS = 2000
PIECE_BYTES = 1 << 16


class MarkovParams(Params):
    """A random Markov chain."""

    kind: Literal["markov"] = "markov"
    order: int = Field(2, ge=0, le=16, description="symbols that the next one depends on")
    symbols: int = Field(16, ge=2, le=64, description="size of the alphabet; each is one byte")
    sharpness: float = Field(
        2.0, ge=0, le=4, description="0: all followers equally likely; higher: more predictable"
    )
    size_bytes: int = Field(4_000_000, ge=1, le=1 << 36, description="length of the text")
    seed: int = Field(0, ge=0, lt=1 << 31, description="of the chain and of the text")

    @model_validator(mode="after")
    def _table_fits(self) -> Self:
        size = self.symbols ** (self.order + 1)
        if size > LARGEST_TABLE:
            raise ValueError(
                f"order: symbols^(order + 1) = {size} > {LARGEST_TABLE}; "
                f"lower order={self.order} or symbols={self.symbols}"
            )
        return self


def transitions(params: MarkovParams) -> Float:
    """Probability of each follower in each context, (contexts, S), rows adding up to 1.

    A row is (-log u)^sharpness for uniform u, normalised: sharpness 1 is the flat Dirichlet
    distribution. Context c is the last k symbols read as a number in base S.
    """
    shape = params.symbols**params.order, params.symbols
    u = uniform(params.seed, Use.MARKOV_RULES, 0, shape[0] * shape[1]).reshape(shape)
    weight = (-np.log(u)) ** params.sharpness
    return weight / weight.sum(axis=1, keepdims=True)


def stationary(follow_CS: Float) -> Float:
    """The distribution over contexts that one step leaves as it is, (contexts,).

    By repeated steps. Every entry of `transitions` is positive, so there is exactly one; half of
    each step stays where it is, which removes oscillation and keeps that one.

    Raises:
        DataError: If the chain forgets its start so slowly that steps do not find it.
    """
    contexts, symbols = follow_CS.shape
    pi_C = np.full(contexts, 1 / contexts)
    if contexts == 1:
        return pi_C
    for _ in range(MOST_STEPS):
        joint_CS = pi_C[:, None] * follow_CS
        next_C = joint_CS.reshape(symbols, -1, symbols).sum(axis=0).reshape(-1)
        moved = float(np.abs(next_C - pi_C).sum())
        pi_C = (pi_C + next_C) / 2
        pi_C /= pi_C.sum()
        if moved < STILL:
            return pi_C
    raise DataError(
        f"data.corpus=markov: the chain forgets its start too slowly ({contexts} contexts); "
        "lower sharpness or order"
    )


def markov_entropy(params: MarkovParams) -> float:
    """Entropy rate of the chain, bits per byte."""
    follow_CS = transitions(params)
    row_C = -(follow_CS * np.log2(follow_CS)).sum(axis=1)
    return float(stationary(follow_CS) @ row_C)


def markov_text(params: MarkovParams) -> Iterator[str]:
    """The chain's text in pieces, without end; `size_bytes` is not looked at."""
    follow_CS = transitions(params)
    contexts, symbols = follow_CS.shape
    numbers = endless(params.seed, Use.MARKOV_TEXT)
    bounds = np.cumsum(follow_CS, axis=1)[:, :-1].tolist()
    context = bisect(np.cumsum(stationary(follow_CS))[:-1].tolist(), next(numbers))
    first = [context // symbols**i % symbols for i in reversed(range(params.order))]

    def following() -> Iterator[int]:
        nonlocal context
        for u in numbers:
            symbol = bisect(bounds[context], u)
            context = (context * symbols + symbol) % contexts
            yield symbol

    source = chain(first, following())
    while True:
        yield "".join(ALPHABET[symbol] for symbol in islice(source, PIECE_BYTES))
