"""What an optimizer takes, by arithmetic: bytes of state, gradients and steps, FLOPs of products.

`optim.py` does what is counted here; each rule's own part stands beside it in `updates.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stackwise.training.aim import Shape, is_hidden
from stackwise.training.optim import SLICE, SLICE_ON_A_CARD
from stackwise.training.updates import OPTIMIZERS

if TYPE_CHECKING:
    from stackwise.config import Optim, Precision


def state_bytes(optim: Optim, precision: Precision, shape: Shape, *, hidden: bool = True) -> int:
    """Bytes of the optimizer's state for one tensor, its master's difference included.

    Args:
        optim: Names the rule.
        precision: Says what matrices are kept in.
        shape: Of the tensor; two axes or more make a matrix.
        hidden: Whether it is in a stack, and not of embedding or head.

    Source: `tests/unit/test_optimizer_state_takes_what_is_said.py`.
    """
    numbers, low = math.prod(shape), precision.weights == "bfloat16" and len(shape) >= 2
    master = 2 * numbers if low and precision.rounding == "master" else 0
    rule = OPTIMIZERS[optim.name]
    aim = rule.aim_at(shape, hidden)
    return master + (rule.state_bytes(numbers) if aim is None else aim.state_bytes(shape))


def part_state_bytes(optim: Optim, precision: Precision, part: str, shapes: Iterable[Shape]) -> int:
    """The same for the tensors of a part: `embedding`, `head` or a stack."""
    hidden = is_hidden(part)
    return sum(state_bytes(optim, precision, shape, hidden=hidden) for shape in shapes)


def paged_bytes(optim: Optim, shapes: Iterable[Shape]) -> int:
    """Of the state of some tensors, what lies in unified memory beside a card."""
    return sum(OPTIMIZERS[optim.name].paged_bytes(math.prod(shape)) for shape in shapes)


def step_flops(optim: Optim, part: str, shapes: Iterable[Shape]) -> int:
    """FLOPs of the matrix products that one step of a rule makes for the tensors of a part."""
    rule = OPTIMIZERS[optim.name]
    aims = ((rule.aim_at(shape, is_hidden(part)), shape) for shape in shapes)
    return sum(aim.flops(shape) for aim, shape in aims if aim is not None)


def gradient_bytes(
    optim: Optim,
    precision: Precision,
    linears: Iterable[int],
    others: Iterable[tuple[int, int]],
) -> int:
    """Bytes of the gradients that are held at once, for one micro-batch or all of a batch.

    Whole: of everything. In backward: the buffer that linear layers share, as large as the largest,
    and the largest gradient that is not in it. (The gradient of a table that is tied to the head
    waits for the end of backward: it is one of `others`.)

    Args:
        optim: Says when tensors are stepped.
        precision: Says what matrices are kept and multiplied in.
        linears: Numbers in the weight of each linear layer that trains; and of an untied head
            whose logits are not held whole.
        others: (numbers, axes) of every other tensor that trains.

    Source: `tests/unit/test_optimizer_state_takes_what_is_said.py`.
    """
    matrices = list(linears)
    if optim.grads == "whole":
        kept = 2 if precision.weights == "bfloat16" else 4
        return kept * sum(matrices) + sum(n * (kept if ndim >= 2 else 4) for n, ndim in others)
    return buffer_bytes(precision, matrices) + beside_bytes(precision, matrices, others)


def buffer_bytes(precision: Precision, linears: Iterable[int]) -> int:
    """Bytes of the buffer that linear layers share in backward, of the largest one's size."""
    return (2 if precision.compute == "bfloat16" else 4) * max(linears, default=0)


def beside_bytes(
    precision: Precision, linears: Iterable[int], others: Iterable[tuple[int, int]]
) -> int:
    """Bytes of the largest gradient that is not in that buffer: one cast, or another tensor's."""
    kept = 2 if precision.weights == "bfloat16" else 4
    made = 2 if precision.compute == "bfloat16" else 4
    cast = kept * max(linears, default=0) if kept != made else 0
    return max(cast, *(n * (kept if ndim >= 2 else 4) for n, ndim in others), 0)


def step_bytes(
    optim: Optim,
    precision: Precision,
    *,
    card: bool = False,
    numbers: int | None = None,
    whole: Iterable[tuple[Shape, bool]] = (),
) -> int:
    """Bytes that a step takes beside weights, gradients and state: those of a slice.

    Of a whole one, or of a tensor of fewer numbers; or of a tensor that a rule has to see whole.

    A rule that is not `whole` has temporaries as large as its slice, on a CPU those that kernels
    take inside (24 bytes a number); a bfloat16 weight and its gradient are float32 meanwhile.

    Args:
        optim: Names the rule.
        precision: Says what matrices are kept in.
        card: Whether a card computes.
        numbers: Of the tensor, if it is one alone.
        whole: Shapes that move, and whether each is hidden: of those that the rule aims at.

    Source: `tests/integration/test_a_step_takes_a_slice_of_memory.py`.
    """
    low, rule = precision.weights == "bfloat16", OPTIMIZERS[optim.name]
    most = SLICE_ON_A_CARD if card else SLICE
    size = most if numbers is None else min(most, numbers)
    aimed = [
        aim.work_bytes(shape, most)
        for shape, hidden in whole
        if (aim := rule.aim_at(shape, hidden)) is not None
    ]
    plain = size * (16 * low + 24 * (not rule.whole and not card))
    return max([0 if rule.whole and not low else plain, *aimed])
