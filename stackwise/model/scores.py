"""FLOPs of products without a weight of the model, by what backward spends on them again."""

from __future__ import annotations

from typing import NamedTuple


class Scores(NamedTuple):
    """FLOPs per token, forward, of what attention computes besides products with its weights.

    Attributes:
        pairs: Products of two things that gradient reaches, as queries on keys and weights on
            values: backward spends twice as much again.
        constant: Products with numbers that never train, as random directions: once as much.
    """

    pairs: float
    constant: float = 0.0

    @property
    def forward(self) -> float:
        """Both together."""
        return self.pairs + self.constant
