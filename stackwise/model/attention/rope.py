"""Rotary position embedding: angles per position, and the rotation of queries and keys.

Source: RoFormer (arXiv 2104.09864), neighbours paired (2i with 2i + 1) as there, since one complex
product then turns them. transformers pairs halves (i with i + E/2) in Llama: the same model, rows
of its queries and keys in another order. That, and the stretch of Llama 3.1, are held against it in
`tests/unit/test_logits_equal_transformers.py`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from stackwise.model.direction import BlockCausal
from stackwise.model.shape import AttentionShape, Llama3Scaling


def inverse_frequencies(dim: int, base: float, scaling: Llama3Scaling | None = None) -> Tensor:
    """Radians per position of each of the dim/2 pairs, float32."""
    inverse = 1.0 / base ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    if scaling is None:
        return inverse
    turns = scaling.original * inverse / (2 * math.pi)
    unscaled = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return inverse * (unscaled + (1 - unscaled) / scaling.factor)


def turned(x: Tensor, turns: Tensor, *, back: bool = False) -> Tensor:
    """Turn each pair (2i, 2i + 1) of the last axis by its position's angle, or back.

    Args:
        x: (B, H, T, E), or any other order that the turns broadcast against.
        turns: Cosine and sine of each pair's angle on the last axis: (T, E/2, 2), or a view of it.
        back: Turn by the negative angle.
    """
    pairs = x.to(turns.dtype).unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        left, right = pairs.unbind(-1)
        cos, sin = turns.unbind(-1)
        sin = -sin if back else sin
        pairs = torch.stack((left * cos - right * sin, left * sin + right * cos), dim=-1)
    else:
        if not _viewable(pairs):
            pairs = pairs.clone(memory_format=torch.contiguous_format)
        pairs = torch.view_as_real(torch.view_as_complex(pairs) * _complex(turns, back))
    return pairs.flatten(-2).to(x.dtype)


def turn_(x: Tensor, turns: Tensor, *, back: bool = False) -> None:
    """The same in place, eager only; in one pass where dtype and layout allow it."""
    pairs = x.unflatten(-1, (-1, 2))
    if x.dtype == turns.dtype and _viewable(pairs):
        torch.view_as_complex(pairs).mul_(_complex(turns, back))
    else:
        x.copy_(turned(x, turns, back=back))


def _complex(turns: Tensor, back: bool) -> Tensor:
    numbers = torch.view_as_complex(turns)
    return numbers.conj_physical() if back else numbers


def _viewable(pairs: Tensor) -> bool:
    """Whether the layout lets each pair be read as one complex number."""
    return not (pairs.storage_offset() % 2 or any(stride % 2 for stride in pairs.stride()[:-1]))


class _Turned(torch.autograd.Function):
    """Backward is the rotation back, in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, turns: Tensor, back: bool) -> Tensor:
        ctx.save_for_backward(turns)
        ctx.back = back
        return turned(x, turns, back=back)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Turned.apply(grad, *ctx.saved_tensors, not ctx.back), None, None


def rotary_of(shape: AttentionShape) -> Rotary | None:
    """What turns the queries and keys of a block; None without RoPE."""
    if shape.rope_base is None:
        return None
    return Rotary(shape.head_dim, shape.rope_base, shape.rope_scaling)


class Rotary(nn.Module):
    """Rotates (B, H, T, E) tensors. Its table grows with the longest sequence; never saved."""

    def __init__(self, dim: int, base: float, scaling: Llama3Scaling | None) -> None:
        super().__init__()
        self.dim, self.base, self.scaling = dim, base, scaling
        self.table_TF2 = torch.empty(0, dim // 2, 2)

    def forward(self, x_BHTE: Tensor, start: int | BlockCausal = 0) -> Tensor:
        """Rotate positions start, start + 1, ..., or those of rows read block by block."""
        turns = self.turns(x_BHTE.shape[-2], x_BHTE, start)
        if torch.compiler.is_compiling():
            return turned(x_BHTE, turns)
        return cast(Tensor, _Turned.apply(x_BHTE, turns, False))

    def turns(self, length: int, like: Tensor, start: int | BlockCausal = 0) -> Tensor:
        """Cosine and sine of `length` positions' angles, (T, E/2, 2), at least float32."""
        if isinstance(start, BlockCausal):
            rows = table((start.noisy, start.clean), self.dim, self.base, self.scaling, like.device)
            return rows.to(torch.promote_types(like.dtype, torch.float32))
        end = start + length
        if end > len(self.table_TF2) or self.table_TF2.device != like.device:
            # Text that goes on token by token asks for one more row each time: twice as many.
            self._grow(1 << (end - 1).bit_length() if start else end, like.device)
        wide = torch.float64 if like.dtype == torch.float64 else torch.float32
        return self.table_TF2[start:end].to(wide)

    def _grow(self, length: int, device: torch.device) -> None:
        self.table_TF2 = table(length, self.dim, self.base, self.scaling, device)


def table(
    length: int | tuple[int, ...],
    dim: int,
    base: float,
    scaling: Llama3Scaling | None,
    device: torch.device,
) -> Tensor:
    """Cosines and sines, (T, E/2, 2); shared by all blocks of the same kind.

    Of so many positions from 0 on, or of several such stretches one after the other.

    What is shared is always ordinary: made under inference mode it can train later, and what a
    fake-tensor mode or a compiler traces is not kept.
    """
    if torch.compiler.is_compiling() or type(torch.empty(0, device="cpu")) is not Tensor:
        return _made(length, dim, base, scaling, device)
    with torch.inference_mode(False):
        return _shared(length, dim, base, scaling, device)


@lru_cache(maxsize=64)
def _shared(
    length: int | tuple[int, ...],
    dim: int,
    base: float,
    scaling: Llama3Scaling | None,
    device: torch.device,
) -> Tensor:
    return _made(length, dim, base, scaling, device)


def _made(
    length: int | tuple[int, ...],
    dim: int,
    base: float,
    scaling: Llama3Scaling | None,
    device: torch.device,
) -> Tensor:
    if isinstance(length, tuple):
        return torch.cat([_made(count, dim, base, scaling, device) for count in length])
    inverse_F = inverse_frequencies(dim, base, scaling).to(device)
    angles_TF = torch.outer(torch.arange(length, device=device, dtype=torch.float32), inverse_F)
    return torch.stack((angles_TF.cos(), angles_TF.sin()), dim=-1)
