"""Rotary position embedding: angles per position, and the rotation of queries and keys.

Source: RoFormer (arXiv 2104.09864), with halves paired as in Llama (i with i + E/2). The stretch of
Llama 3.1 is held against transformers in `tests/unit/test_logits_equal_transformers.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from stackwise.model.norm import lean_on
from stackwise.model.shape import Llama3Scaling


def inverse_frequencies(dim: int, base: float, scaling: Llama3Scaling | None = None) -> Tensor:
    """Radians per position of each of the dim/2 pairs, float32."""
    inverse = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    if scaling is None:
        return inverse
    turns = scaling.original * inverse / (2 * math.pi)
    unscaled = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return inverse * (unscaled + (1 - unscaled) / scaling.factor)


def rotate(x: Tensor, cos_TE: Tensor, sin_TE: Tensor) -> Tensor:
    """Turn each pair (i, i + E/2) of the last axis by its position's angle.

    The tables, or views of them, must broadcast against x: (B, H, T, E), or any other order.
    """
    if lean_on(x):
        return cast(Tensor, _Turn.apply(x, cos_TE, sin_TE, 1))
    return turn(x, cos_TE, sin_TE, 1)


def turn(x: Tensor, cos_TE: Tensor, sin_TE: Tensor, way: int) -> Tensor:
    """Rotate by the angle (way 1) or back (way -1)."""
    return torch.addcmul(x * cos_TE, swap_halves(x), sin_TE, value=way)


def swap_halves(x: Tensor) -> Tensor:
    """Exchange i and i + E/2 of the last axis."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((right, left), dim=-1)


class _Turn(torch.autograd.Function):
    """Backward is the rotation back: fewer passes than autograd takes through its parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos_TE: Tensor, sin_TE: Tensor, way: int) -> Tensor:
        ctx.save_for_backward(cos_TE, sin_TE)
        ctx.way = way
        return turn(x, cos_TE, sin_TE, way)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Turn.apply(grad, *ctx.saved_tensors, -ctx.way), None, None, None


class Rotary(nn.Module):
    """Rotates (B, H, T, E) tensors. Its tables grow with the longest sequence; never saved."""

    def __init__(self, dim: int, base: float, scaling: Llama3Scaling | None) -> None:
        super().__init__()
        self.dim, self.base, self.scaling = dim, base, scaling
        self.cos_TE = torch.empty(0, dim)
        self.sin_TE = torch.empty(0, dim)

    def forward(self, x_BHTE: Tensor, offset: int = 0) -> Tensor:
        """Rotate positions offset, offset + 1, ..."""
        return rotate(x_BHTE, *self.tables_at(offset, x_BHTE.shape[-2], x_BHTE))

    def tables_at(self, offset: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of `length` positions, (T, E) each, with a tensor's type."""
        end = offset + length
        if end > len(self.cos_TE) or self.cos_TE.device != like.device:
            self._grow(end, like.device)
        return self.cos_TE[offset:end].to(like.dtype), self.sin_TE[offset:end].to(like.dtype)

    def tables_held(self) -> tuple[Tensor, Tensor]:
        """The tables as they are now."""
        return self.cos_TE, self.sin_TE

    def _grow(self, length: int, device: torch.device) -> None:
        self.cos_TE, self.sin_TE = tables(length, self.dim, self.base, self.scaling, device)


def tables(
    length: int, dim: int, base: float, scaling: Llama3Scaling | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines, (T, E) each; shared by all blocks of the same kind.

    What is shared is always ordinary: made under inference mode it can train later, and what a
    fake-tensor mode or a compiler traces is not kept.
    """
    if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not Tensor:
        return _made(length, dim, base, scaling, device)
    with torch.inference_mode(False):
        return _shared(length, dim, base, scaling, device)


@lru_cache(maxsize=64)
def _shared(
    length: int, dim: int, base: float, scaling: Llama3Scaling | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    return _made(length, dim, base, scaling, device)


def _made(
    length: int, dim: int, base: float, scaling: Llama3Scaling | None, device: torch.device
) -> tuple[Tensor, Tensor]:
    inverse_F = inverse_frequencies(dim, base, scaling).to(device)
    angles_TF = torch.outer(torch.arange(length, device=device, dtype=torch.float32), inverse_F)
    sin_TF = angles_TF.sin()
    return angles_TF.cos().repeat(1, 2), torch.cat((-sin_TF, sin_TF), dim=-1)
