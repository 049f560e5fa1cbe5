"""What an update rule is: an entry of `OPTIMIZERS`, which stand in `updates.py`.

Most rules move number by number, so that a tensor may be handed to them in slices. Some have to see
a whole tensor first, and then say for each of its rows where it goes: such a rule has an `Aim`.
Neither rounds weights nor cuts slices; `optim.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from stackwise.model.formats import lacking

if TYPE_CHECKING:
    from stackwise.config import Optim

Kept = dict[str, Tensor]  # name to state; `step` counts the steps done
Shape = tuple[int, ...]
Along = Callable[[int, int], Tensor]  # (first row, row after the last) -> where those rows go


@dataclass(frozen=True)
class Aim:
    """How a rule moves the tensors that it has to see whole.

    Weights move against what `look` gives, times rate and `scale`; decay is the optimizer's.

    Attributes:
        takes: (shape, hidden) -> whether a tensor is moved so; the others are by `Rule.move`.
            Hidden are those of stacks, and not of embedding and head.
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


@dataclass(frozen=True)
class Rule:
    """An entry of `OPTIMIZERS`.

    Attributes:
        start: (weights) -> the state before the first step.
        move: (optim, rate, decay, weights, grads, states): one step, in place. It leaves each
            state's `step` one higher.
        state_bytes: (numbers in a tensor) -> bytes of its state, the counted step included.
        whole: Whether whole lists of float32 tensors are moved in one call. Otherwise the rule has
            temporaries as large as what it is handed, and gets slices.
        bitsandbytes: Whether it needs that package, as new as `formats.py` asks.
        aim: For tensors that it has to see whole; None where there are none.
        paged_bytes: (numbers in a tensor) -> bytes of its state that lie in unified memory where a
            card computes, and may be anywhere.
    """

    start: Callable[[Tensor], Kept]
    move: Callable[[Optim, float, float, list[Tensor], list[Tensor], list[Kept]], None]
    state_bytes: Callable[[int], int]
    whole: bool
    bitsandbytes: bool = False
    aim: Aim | None = None
    paged_bytes: Callable[[int], int] = lambda numbers: 0

    def missing(self) -> str | None:
        """What is wrong with bitsandbytes, if it needs it, with the way out; None for nothing."""
        return lacking() if self.bitsandbytes else None

    def aim_at(self, shape: Shape, hidden: bool) -> Aim | None:
        """How it moves a tensor that it has to see whole; None for one that it has not."""
        return self.aim if self.aim is not None and self.aim.takes(shape, hidden) else None


def is_hidden(part: str) -> bool:
    """Whether a part's tensors lie inside of stacks, and not at the ends of the rack."""
    return part not in ("embedding", "head")


def rows_of(shape: Shape) -> tuple[int, int]:
    """A tensor as a matrix: its first axis, by all others."""
    columns = 1
    for axis in shape[1:]:
        columns *= axis
    return shape[0], columns


def rows_at_once(columns: int, numbers: int) -> int:
    """Whole rows of a matrix in so many numbers, one at least."""
    return max(1, numbers // columns)
