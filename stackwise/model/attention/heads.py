"""Queries, keys and values of all heads, cut from one product: q and k normalised and turned.

Where torch does not fuse by itself (eager on a CPU) that is one operation with its own backward,
over queries and keys together; `benchmarks/step.py` counts on it.

Shapes: B samples, T tokens, H query heads, G key heads, E numbers per head, N = H + 2G heads of the
product in the order queries, keys, values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stackwise.model.attention.rope import Rotary, turn_, turned
from stackwise.model.direction import BlockCausal
from stackwise.model.norm import RMSNorm, inverse_rms, lean_on
from stackwise.model.shape import AttentionShape


class Heads(NamedTuple):
    """What attention compares and sums."""

    q_BHTE: Tensor
    k_BGTE: Tensor
    v_BGTE: Tensor


def qkv_linear(shape: AttentionShape) -> nn.Linear:
    """The product that gives all heads: D numbers to N E."""
    rows = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return nn.Linear(shape.d_model, rows, bias=shape.bias)


def cut(x_BTF: Tensor, shape: AttentionShape) -> Heads:
    """The product's result as queries, keys and values, views of it."""
    x_BTNE = x_BTF.unflatten(-1, (-1, shape.head_dim))
    parts = x_BTNE.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=2)
    return Heads(*(part.transpose(1, 2) for part in parts))


def scored(
    x_BTF: Tensor,
    shape: AttentionShape,
    q_norm: RMSNorm | None,
    k_norm: RMSNorm | None,
    rotary: Rotary | None,
    start: int | BlockCausal = 0,
) -> Heads:
    """The same, with queries and keys normalised and turned where there is anything to do so.

    Position `start` is the first one, or it says where rows stand that are read block by block.
    """
    if q_norm is None and rotary is None:
        return cut(x_BTF, shape)
    if lean_on(x_BTF):
        turns = rotary.turns(x_BTF.shape[1], x_BTF, start)[:, None] if rotary is not None else None
        weights = (q_norm.weight, k_norm.weight) if q_norm and k_norm else (None, None)
        return Heads(*_Scored.apply(x_BTF, shape, turns, *weights))
    q_BHTE, k_BGTE, v_BGTE = cut(x_BTF, shape)
    if q_norm is not None and k_norm is not None:
        q_BHTE, k_BGTE = q_norm(q_BHTE), k_norm(k_BGTE)
    if rotary is not None:
        q_BHTE, k_BGTE = rotary(q_BHTE, start), rotary(k_BGTE, start)
    return Heads(q_BHTE, k_BGTE, v_BGTE)


class _Scored(torch.autograd.Function):
    """R(w x / rms x) for queries and keys, with R the rotation; values as they are."""

    @staticmethod
    def forward(
        ctx: Any,
        x_BTF: Tensor,
        shape: AttentionShape,
        turns: Tensor | None,
        q_weight_E: Tensor | None,
        k_weight_E: Tensor | None,
    ) -> tuple[Tensor, ...]:
        x_BTNE = x_BTF.unflatten(-1, (-1, shape.head_dim))
        inner = shape.heads + shape.kv_heads
        y, v_BTGE = x_BTNE[:, :, :inner], x_BTNE[:, :, inner:]
        x = scale = None
        if q_weight_E is not None and k_weight_E is not None:
            x = y.to(q_weight_E.dtype)
            scale = inverse_rms(x, shape.norm_eps)
            y = (x * scale).mul_(_by_head(shape, q_weight_E, k_weight_E))
            if turns is not None:
                turn_(y, turns)
        elif turns is not None:
            y = turned(y, turns)
        if x is None or x.dtype != x_BTF.dtype:
            v_BTGE = v_BTGE.clone()  # else it would keep the whole product for backward
        ctx.save_for_backward(x, scale, turns, q_weight_E, k_weight_E)
        ctx.shape = shape
        parts = *y.split((shape.heads, shape.kv_heads), dim=2), v_BTGE
        return tuple(part.transpose(1, 2) for part in parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """With g turned back, s = 1/rms: dx = s (w g - x s^2 mean(w g x)), dw = sum of s g x."""
        x, scale, turns, *weights = ctx.saved_tensors
        shape, dtype = ctx.shape, grads[-1].dtype
        grad_BTNE = torch.cat([grad.transpose(1, 2).to(dtype) for grad in grads], dim=2)
        inner = grad_BTNE[:, :, : shape.heads + shape.kv_heads]
        if turns is not None:
            turn_(inner, turns, back=True)
        grad_weights: list[Tensor | None] = [None, None]
        if x is not None:
            weight_NE, product = _by_head(shape, *weights), inner * x
            if any(ctx.needs_input_grad[3:]):
                by_head_NE = torch.einsum("btne,btno->ne", product, scale)
                parts = by_head_NE.split((shape.heads, shape.kv_heads))
                grad_weights = [part.sum(0) for part in parts]
            mean = torch.einsum("btne,ne->btn", product, weight_NE)[..., None]
            mean.mul_(scale.square()).div_(shape.head_dim)
            torch.mul(torch.addcmul(inner * weight_NE, x, mean, value=-1), scale, out=inner)
        return grad_BTNE.flatten(2), None, None, *grad_weights


def _by_head(shape: AttentionShape, q_weight_E: Tensor, k_weight_E: Tensor) -> Tensor:
    """The norms' weights, one row for each query and key head."""
    return torch.cat((q_weight_E.expand(shape.heads, -1), k_weight_E.expand(shape.kv_heads, -1)))
