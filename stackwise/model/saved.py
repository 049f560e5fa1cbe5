"""What autograd keeps for backward, per token, as counts of numbers by dtype."""

from __future__ import annotations

from typing import NamedTuple


class Saved(NamedTuple):
    """Numbers per token that are kept between forward and backward.

    Attributes:
        full: Always float32: norms and what softmax leaves.
        compute: In the dtype of matrix products.
    """

    full: int
    compute: int

    def plus(self, other: Saved) -> Saved:
        """Both together."""
        return Saved(self.full + other.full, self.compute + other.compute)

    def bytes(self, compute_bytes: int) -> int:
        """Bytes per token when matrix products are in numbers of `compute_bytes` each."""
        return 4 * self.full + compute_bytes * self.compute
