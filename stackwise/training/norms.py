"""The norms of gradients, of everything that trains and of each block, and clipping by them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stackwise.training.optim import SLICE
from stackwise.training.trained import Named


def global_norms(named: Named) -> tuple[float, dict[str, float]]:
    """The gradient norm of everything, and of each block (`s0.0`), embedding and head."""
    owned = {key: p.grad for key, p in named.items() if p.grad is not None}
    sliced = {key: square_of(grad) for key, grad in owned.items() if takes_a_copy(grad)}
    whole = [grad for key, grad in owned.items() if key not in sliced]
    low = any(grad.dtype == torch.bfloat16 for grad in whole)
    dtype = torch.float32 if low else None  # of bfloat16: three digits are too few to clip by
    norms = torch.stack(torch._foreach_norm(whole, 2, dtype)).tolist() if whole else []  # one wait
    others = iter(norms)
    squares: dict[str, float] = {}
    for part, name in owned:
        block = block_of(part, name)
        one = sliced[part, name] if (part, name) in sliced else next(others) ** 2
        squares[block] = squares.get(block, 0.0) + one
    return math.sqrt(sum(squares.values())), {key: math.sqrt(v) for key, v in squares.items()}


def block_of(part: str, name: str) -> str:
    """`s1`, `blocks.0.ffn.up.weight` to `s1.0`; embedding and head are themselves."""
    return f"{part}.{name.split('.')[1]}" if name.startswith("blocks.") else part


def clip_(named: Named, norm: float, bound: float | None) -> None:
    """Scale all gradients so that their norm, now `norm`, is at most `bound`."""
    if bound is not None and norm > bound:
        grads = [p.grad for p in named.values() if p.grad is not None]
        torch._foreach_mul_(grads, bound / norm)


def takes_a_copy(grad: Tensor) -> bool:
    """Whether torch would make a float32 copy for the norm: of bfloat16, where no card is."""
    return grad.dtype == torch.bfloat16 and grad.device.type == "cpu" and grad.numel() > SLICE


def square_of(grad: Tensor) -> float:
    """The sum of a gradient's squares; in slices, since a float32 copy of all would be large."""
    squares = []
    for piece in grad.reshape(-1).split(SLICE):
        wide = piece.float()  # and one product: two thirds of the time of a norm in float32
        squares.append(torch.dot(wide, wide))
    return float(torch.stack(squares).double().sum())
