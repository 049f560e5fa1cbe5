"""Queries and keys on their way to the scores: normalised, turned, heads first.

Where torch does not fuse by itself (eager on a CPU) the two are one operation with its own
backward, which takes three quarters of the time: `benchmarks/step.py` counts on it.

Shapes: B samples, T tokens, H heads, E numbers per head.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from stackwise.model.attention.rope import Rotary, swap_halves, turn
from stackwise.model.norm import RMSNorm, inverse_rms, lean_on


def scored(x_BTHE: Tensor, norm: RMSNorm | None, rotary: Rotary | None) -> Tensor:
    """(B, T, H, E) to (B, H, T, E), each head by itself; norm and rotation where there are any."""
    if norm is not None and rotary is not None and lean_on(x_BTHE):
        x_BTHE = x_BTHE.to(norm.weight.dtype)
        cos_TE, sin_TE = rotary.tables_at(0, x_BTHE.shape[1], x_BTHE)
        tables = cos_TE[:, None], sin_TE[:, None]
        y_BTHE = _NormedAndTurned.apply(x_BTHE, norm.weight, norm.eps, *tables)
        return cast(Tensor, y_BTHE.transpose(1, 2))
    x_BHTE = (x_BTHE if norm is None else norm(x_BTHE)).transpose(1, 2)
    return x_BHTE if rotary is None else rotary(x_BHTE)


class _NormedAndTurned(torch.autograd.Function):
    """R(w x / rms x), with R the rotation: the weight goes into the tables, 1/rms comes last."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_E: Tensor, eps: float, cos_T1E: Tensor, sin_T1E: Tensor
    ) -> Tensor:
        scale = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight_E, scale, cos_T1E, sin_T1E)
        return turn(x, cos_T1E * weight_E, sin_T1E * swap_halves(weight_E), 1).mul_(scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With g turned back, s = 1/rms: dx = s (w g - x s^2 mean(w g x)), dw = sum of s g x."""
        x, weight_E, scale, cos_T1E, sin_T1E = ctx.saved_tensors
        grad = turn(grad, cos_T1E, sin_T1E, -1)
        product_NE = (grad * x).flatten(0, -2)
        mean = (product_NE @ weight_E).view_as(scale).mul_(scale.square()).div_(x.shape[-1])
        grad_x = torch.addcmul(grad.mul_(weight_E), x, mean, value=-1).mul_(scale)
        return grad_x, scale.flatten() @ product_NE, None, None, None
