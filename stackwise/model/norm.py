"""RMSNorm that is lean on a CPU: it keeps its input and one number per token, not its result.

torch's own is a chain of operations there, each with a pass over memory, that keeps the normalised
input as well; here backward is LayerNorm's fused kernel, told that the mean is zero. The same
numbers to rounding, and half of them kept: `tests/unit/test_rmsnorm_is_lean.py`. Compiled, or on an
accelerator, torch's own is used.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """x / rms(x) * weight over the last axis (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        x = x.to(self.weight.dtype)
        if lean_on(x):
            return cast(Tensor, _Lean.apply(x, self.weight, self.eps))
        return super().forward(x)


def lean_on(x: Tensor) -> bool:
    """Whether hand-written backwards pay: eager on a CPU. Elsewhere torch fuses by itself."""
    return x.is_cpu and not torch.compiler.is_compiling()


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean x^2 + eps) over the last axis, which stays with size 1. In one pass over x."""
    rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return rms.square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def cast_once(x: Tensor) -> Tensor:
    """What autocast would make of `x` for each layer that reads it, each keeping a copy."""
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return x
    return x.to(torch.get_autocast_dtype(device))


class _Lean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        scale_N1 = inverse_rms(x_ND, eps)
        ctx.save_for_backward(x_ND, weight_D, scale_N1)
        return (x_ND * scale_N1).mul_(weight_D)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """LayerNorm's backward takes the gradient's mean away, which RMSNorm's does not: add it."""
        x_ND, weight_D, scale_N1 = ctx.saved_tensors
        width = x_ND.shape[-1:]
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], False]
        grad_x_ND, grad_weight_D, _ = torch.ops.aten.native_layer_norm_backward(
            grad_ND, x_ND, width, torch.zeros_like(scale_N1), scale_N1, weight_D, None, wanted
        )
        if wanted[0]:
            mean_N1 = (grad_ND @ weight_D).unsqueeze(-1).mul_(scale_N1).div_(width[0])
            grad_x_ND.add_(mean_N1)
        return grad_x_ND, grad_weight_D, None
