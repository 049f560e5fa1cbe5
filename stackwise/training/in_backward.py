"""Steps in backward: each tensor moves as soon as its gradient is whole, and the gradient goes.

No more than one large gradient is held (LOMO, arXiv 2306.09782, does so with plain descent). What
moves in the middle of backward must not be needed any more by what is still to come:

- autograd adds up a tensor's gradient over all its uses and calls the hook once, after the last;
- each use works out the gradient of its input in the same breath as that of its weight;
- a block that is recomputed is recomputed whole, before anything in it moves;
- a move raises the tensor's version, so that any use this leaves out is an error of autograd's, and
  never a wrong number.

The price: the gradient's norm is known only at the end, so that nothing can be clipped, and a
gradient that is no number is found when other tensors have moved already.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor, nn

from stackwise.adapters import SUFFIX
from stackwise.training.norms import block_of, sliced
from stackwise.training.optim import Optimizer
from stackwise.training.scratch import Scratch, borrow, stop_borrowing
from stackwise.training.trained import Named

if TYPE_CHECKING:
    from stackwise.config import Optim


def stepping_of(
    optim: Optim, named: Named, optimizer: Optimizer, model: nn.Module, *, compiled: bool
) -> InBackward | None:
    """Steps in backward, if the experiment asks for them."""
    if optim.grads != "in_backward":
        return None
    return InBackward(named, optimizer, () if compiled else model.modules())


class PartlyTaken(FloatingPointError):
    """A gradient that is no number, found when part of a step was taken.

    Args:
        message: What is no number.
        part: Of which part: `s0`.
        tensor: Of which tensor in it.
    """

    def __init__(self, message: str, part: str, tensor: str) -> None:
        super().__init__(message)
        self.part, self.tensor = part, tensor


class InBackward:
    """Moves what trains while backward runs.

    Args:
        named: What trains.
        optimizer: Over exactly that.
        modules: Linear layers among them share one gradient buffer. Give none of those that are
            compiled; off the CPU, where fresh memory costs nothing, they are left alone.

    Attributes:
        moved: Tensors that moved in the present step.
        largest: Bytes of the largest gradient yet that was not in the shared buffer.
        scratch: The shared buffer.
    """

    def __init__(
        self, named: Named, optimizer: Optimizer, modules: Iterable[nn.Module] = ()
    ) -> None:
        self.optimizer = optimizer
        self.moved: set[nn.Parameter] = set()
        self.squares: dict[str, float] = {}
        self.scratch, self.largest = Scratch(), 0
        self.blocks = {parameter: block_of(*key) for key, parameter in named.items()}
        self.keys = {parameter: key for key, parameter in named.items()}
        beside = {p for (part, _), p in named.items() if part.endswith(SUFFIX)}
        self.hooks = [p.register_post_accumulate_grad_hook(self._move) for p in self.blocks]
        self.linears = [layer for layer in modules if self._is_ours(layer, beside)]
        for linear in self.linears:
            borrow(linear, self.scratch)

    def begin(self, rate: float) -> None:
        """Be ready for one backward, at this learning rate."""
        self.optimizer.rate = rate
        self.moved, self.squares = set(), {}
        self.scratch.clear()

    def norms(self) -> tuple[float, dict[str, float]]:
        """The gradient norm of everything that moved, and of each block, embedding and head."""
        each = {block: math.sqrt(square) for block, square in self.squares.items()}
        return math.sqrt(sum(self.squares.values())), each

    @property
    def gradient_bytes(self) -> int:
        """Bytes of gradients held at once: the shared buffer, and the largest not in it."""
        return self.scratch.nbytes + self.largest

    def close(self) -> None:
        """Leave parameters and layers as they were found."""
        for hook in self.hooks:
            hook.remove()
        for linear in self.linears:
            stop_borrowing(linear)

    def _is_ours(self, layer: nn.Module, beside: Collection[nn.Parameter]) -> TypeGuard[nn.Linear]:
        if type(layer) is not nn.Linear or layer.weight in beside:  # adapters are small
            return False
        return layer.weight in self.blocks and layer.weight.is_cpu

    def _move(self, parameter: Tensor) -> None:
        assert isinstance(parameter, nn.Parameter) and parameter.grad is not None
        square, block = square_of(parameter.grad), self.blocks[parameter]
        if not math.isfinite(square):
            raise PartlyTaken(
                f"the gradient norm of {self.optimizer.names[parameter]} is {math.sqrt(square)}; "
                "lower lr, or look at this batch",
                *self.keys[parameter],
            )
        self.squares[block] = self.squares.get(block, 0.0) + square
        if not self.scratch.holds(parameter.grad):
            self.largest = max(self.largest, parameter.grad.nbytes)
        self.optimizer.move([parameter])
        parameter.grad = None
        self.scratch.give_back(parameter)
        self.moved.add(parameter)


def square_of(grad: Tensor) -> float:
    """The sum of a gradient's squares; in slices, since a float32 copy of all would be large."""
    squares = []
    for piece in sliced(grad):
        wide = piece.float()  # and one product: two thirds of the time of a norm in float32
        squares.append(torch.dot(wide, wide))
    return float(torch.stack(squares).double().sum())
