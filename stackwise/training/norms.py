"""The norms of gradients, of everything that trains and of each block, and clipping by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stackwise.adapters import SUFFIX
from stackwise.training.optim import SLICE
from stackwise.training.trained import Named


def global_norms(named: Named) -> tuple[float, dict[str, float]]:
    """The gradient norm of everything, and of each block (`s0.0`), embedding and head."""
    pieces = [
        (block_of(part, name), piece)
        for (part, name), parameter in named.items()
        if parameter.grad is not None
        for piece in (sliced(parameter.grad) if takes_a_copy(parameter.grad) else [parameter.grad])
    ]
    low = any(piece.dtype == torch.bfloat16 for _, piece in pieces)
    dtype = torch.float32 if low else None  # of bfloat16: three digits are too few to clip by
    norms = torch.stack(torch._foreach_norm([piece for _, piece in pieces], 2, dtype))
    squares: dict[str, float] = {}
    for (block, _), norm in zip(pieces, norms.tolist(), strict=True):  # one wait
        squares[block] = squares.get(block, 0.0) + norm * norm
    return math.sqrt(sum(squares.values())), {key: math.sqrt(v) for key, v in squares.items()}


def block_of(part: str, name: str) -> str:
    """`s1`, `blocks.0.ffn.up.weight` to `s1.0`, an adapter's too; the ends are themselves."""
    return (
        f"{part.removesuffix(SUFFIX)}.{name.split('.')[1]}" if name.startswith("blocks.") else part
    )


def clip_(named: Named, norm: float, bound: float | None) -> None:
    """Scale all gradients so that their norm, now `norm`, is at most `bound`."""
    if bound is not None and norm > bound:
        grads = [p.grad for p in named.values() if p.grad is not None]
        torch._foreach_mul_(grads, bound / norm)


def all_finite(tensor: Tensor) -> bool:
    """Whether all its numbers are numbers; takes no memory and little time."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor.detach())
    return bool(torch.isfinite(low) & torch.isfinite(high))


def takes_a_copy(grad: Tensor) -> bool:
    """Whether torch makes a float32 copy for the norm: of bfloat16, where no card is."""
    return grad.dtype == torch.bfloat16 and grad.device.type == "cpu"


def sliced(grad: Tensor) -> tuple[Tensor, ...]:
    """Its numbers a few at a time, so that a copy of them is small."""
    return grad.reshape(-1).split(SLICE)
