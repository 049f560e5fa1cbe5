"""Weight gradients of linear layers in one buffer that is used again and again.

A fresh gradient the size of a weight is paid for page by page when it is first written: at the
width of a 70B block that is a sixth of backward (`benchmarks/full_width.py`). Where every gradient
is used up at once, one buffer serves all layers. Autograd still adds up what a weight gets from
several uses, and says when that is all of it; only then is the buffer free for the next.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scratch:
    """Lends memory for the gradient of one parameter until it is given back.

    Attributes:
        free: Buffers that nobody uses, as bytes: one, but where a gradient has to wait for the end
            of backward, as that of a tied table.
        lent: Buffers by the parameter whose gradient they hold.
    """

    def __init__(self) -> None:
        self.free: list[Tensor] = []
        self.lent: dict[Tensor, Tensor] = {}

    def take(self, parameter: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Unset memory for a gradient; fresh if this parameter holds some already."""
        if parameter in self.lent:
            return torch.empty(shape, dtype=dtype, device=parameter.device)
        size = shape.numel() * dtype.itemsize
        place = next((i for i, buffer in enumerate(self.free) if buffer.numel() >= size), None)
        if place is None:
            self.free.clear()  # too small for this one: the larger one serves them all
            buffer = torch.empty(size, dtype=torch.uint8, device=parameter.device)
        else:
            buffer = self.free.pop(place)
        self.lent[parameter] = buffer
        return buffer[:size].view(dtype).view(shape)

    def give_back(self, parameter: Tensor) -> None:
        """The gradient of a parameter has been used up."""
        if parameter in self.lent:
            self.free.append(self.lent.pop(parameter))

    def holds(self, gradient: Tensor) -> bool:
        """Whether a gradient lies in a buffer that is lent."""
        place = gradient.untyped_storage().data_ptr()
        return any(place == buffer.untyped_storage().data_ptr() for buffer in self.lent.values())

    def clear(self) -> None:
        """Take back what was lent to a backward that failed."""
        for parameter in list(self.lent):
            self.give_back(parameter)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in [*self.free, *self.lent.values()])


def borrow(linear: nn.Linear, scratch: Scratch) -> None:
    """From now on a layer's weight gradient is written into `scratch`; all else is as it was."""
    linear.forward = partial(forward, linear, scratch)  # type: ignore[method-assign]


def stop_borrowing(linear: nn.Linear) -> None:
    """Undo `borrow`."""
    linear.__dict__.pop("forward", None)


def forward(linear: nn.Linear, scratch: Scratch, x: Tensor) -> Tensor:
    """(..., I) to (..., O), in the dtype that autocast asks for."""
    weight: Tensor = linear.weight
    bias: Tensor | None = linear.bias
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = bias if bias is None else bias.to(dtype)
    if not (torch.is_grad_enabled() and weight.requires_grad):
        return F.linear(x, weight, bias)
    return cast(Tensor, _Linear.apply(x, weight, bias, partial(scratch.take, linear.weight)))


class _Linear(torch.autograd.Function):
    """F.linear, with a backward that writes the weight's gradient where it is told to."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, take: Any) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        ctx.take = take
        return F.linear(x, weight_OI, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        """The input's gradient first: the weight moves as soon as its own is handed on."""
        x, weight_OI = ctx.saved_tensors
        grad_NO, x_NI = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = grad_NO.mm(weight_OI).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_bias_O = grad_NO.sum(0) if ctx.needs_input_grad[2] else None
        grad_weight_OI = ctx.take(weight_OI.shape, weight_OI.dtype)
        torch.mm(grad_NO.t(), x_NI, out=grad_weight_OI)
        return grad_x, grad_weight_OI, grad_bias_O, None
