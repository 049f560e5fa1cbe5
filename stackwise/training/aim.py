"""How a rule moves tensors that it has to see whole: once, to say for each row where it goes.

Most update rules (`updates.py`) move number by number, so that a tensor may be handed to them in
slices. `muon.py` and `adafactor.py` have an `Aim` for matrices. It neither rounds weights nor cuts
rows; `optim.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from stackwise.adapters import SUFFIX

Kept = dict[str, Tensor]  # name to state; `step` counts the steps done
Shape = tuple[int, ...]
Along = Callable[[int, int], Tensor]  # (first row, row after the last) -> where those rows go


@dataclass(frozen=True)
class Aim:
    """How a rule moves the tensors that it has to see whole.

    Weights move against what `look` gives, times rate and `scale`; decay is the optimizer's.

    Attributes:
        takes: (shape, hidden) -> whether a tensor is moved so; the others are by `Rule.move`.
            Hidden are those of stacks, and not of embedding, head and adapters.
        start: (weights) -> the state before the first step.
        look: (gradient, state, numbers in hand): brings the state one step on, and gives what to
            ask for the rows of the tensor, seen as a matrix of its first axis by all others.
        scale: (shape) -> what the rate is multiplied by.
        state_bytes: (shape) -> bytes of the state, the counted step included.
        work_bytes: (shape, numbers in hand) -> bytes that `look`, and asking it, take meanwhile.
        flops: (shape) -> FLOPs of the matrix products of a step.
    """

    takes: Callable[[Shape, bool], bool]
    start: Callable[[Tensor], Kept]
    look: Callable[[Tensor, Kept, int], Along]
    scale: Callable[[Shape], float]
    state_bytes: Callable[[Shape], int]
    work_bytes: Callable[[Shape, int], int]
    flops: Callable[[Shape], int]


def is_hidden(part: str) -> bool:
    """Whether a part is a stack, and not an end of the rack or the adapter beside a stack."""
    return part not in ("embedding", "head") and not part.endswith(SUFFIX)


def rows_of(shape: Shape) -> tuple[int, int]:
    """A tensor as a matrix: its first axis, by all others."""
    columns = 1
    for axis in shape[1:]:
        columns *= axis
    return shape[0], columns


def rows_at_once(columns: int, numbers: int) -> int:
    """Whole rows of a matrix in so many numbers, one at least."""
    return max(1, numbers // columns)
