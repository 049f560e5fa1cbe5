"""What a layer holds at once while it works, beside what autograd keeps: counts of numbers."""

from __future__ import annotations

from typing import NamedTuple

from stackwise.model.direction import Direction
from stackwise.model.saved import Saved


class Passing(NamedTuple):
    """How samples pass through a layer.

    Attributes:
        length: Tokens of one sample.
        causal: Whether no token sees a later one; or block by block, `length` being rows.
        low: Whether products are in bfloat16.
    """

    length: int
    causal: Direction
    low: bool


class Working(NamedTuple):
    """Numbers per token that an attention sub-layer holds at its highest moments.

    Its input and the gradient of the residual stream are the block's and are left out.

    Attributes:
        forward: In a forward pass that keeps nothing.
        core: In backward, while the gradients of queries, keys and values are worked out; what is
            kept until then included.
        product: In backward, at the last products with weights: those that read its input.
        squares: Bytes beside these, for each pair of tokens of one sample.
    """

    forward: Saved
    core: Saved
    product: Saved
    squares: int = 0


class Moment(NamedTuple):
    """A moment of a block's backward.

    Attributes:
        floats: Numbers per token that are there, what is still kept included.
        made: Weights of the block that have a gradient by then, if they train.
        hand: Numbers of the weight whose gradient is being made.
        squares: Bytes beside these, for each pair of tokens of one sample.
        after: What is left of `floats` when that gradient is made; None: all.
        still: Weights of the block that never train and are done with by then.
    """

    floats: Saved
    made: int
    hand: int
    squares: int = 0
    after: Saved | None = None
    still: int = 0

    @property
    def made_up(self) -> Moment:
        """The same once the gradient in hand is made."""
        return self._replace(floats=self.after or self.floats, hand=0)
