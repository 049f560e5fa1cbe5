"""Random bits for data: sample orders and synthetic text, each from a counter of its own.

Like `stackwise.draws` this is Philox (Salmon et al., SC 2011) read as raw bits, which numpy
promises never to change, unlike the methods of its `Generator`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from itertools import count

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16


class Use(IntEnum):
    """What bits are for: different uses are independent. Never renumber; `draws` has 0 to 15."""

    ORDER = 16
    MARKOV_RULES = 17
    MARKOV_TEXT = 18
    GRAMMAR_RULES = 19
    GRAMMAR_TEXT = 20


def bits(seed: int, use: Use, number: int, size: int) -> NDArray[np.uint64]:
    """`size` random 64-bit words, a pure function of the arguments.

    Args:
        seed: 0 or more.
        use: What they are for.
        number: Which block of them: an epoch, or a place in an endless sequence.
        size: How many.
    """
    key = np.array([seed, use], dtype=np.uint64)
    counter = np.array([0, number, 0, 0], dtype=np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(size)


def uniform(seed: int, use: Use, number: int, size: int) -> NDArray[np.float64]:
    """`size` numbers in (0, 1), odd multiples of 2^-54, so that their logarithm is finite."""
    words = bits(seed, use, number, size) >> np.uint64(11)
    return (words.astype(np.float64) + 0.5) * 2.0**-53


def endless(seed: int, use: Use) -> Iterator[float]:
    """Uniform numbers without end."""
    for number in count():
        yield from uniform(seed, use, number, BLOCK).tolist()
