"""The loss of a linear head, whose logits are never held whole.

Forward goes over rows, a few at a time: their logits, the loss, and at once the gradient of the
hidden states. Backward, where the head trains, goes over columns: logits again, probabilities from
what forward kept of each row, and each stretch of the weight's gradient by one product over all
rows, so that nothing is added up in bfloat16. Kept are the largest logit m and the sum of
exp(logit - m), apart: in their log-sum-exp a large m leaves the sum no digits. With a frozen head
that is two products, with one that trains four; `benchmarks/head.py` has the figures beside the
plain formula and torch's chunked `linear_cross_entropy`, which takes more than twice as long in
bfloat16 on a CPU.

Shapes: N counted positions, P of them at once; D width; V entries, C of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from stackwise.evaluation import LOGITS_AT_ONCE as LOGITS_AT_ONCE

Take = Callable[[torch.Size, torch.dtype], Tensor]  # unset memory for a weight's gradient


def chunked_loss(
    x_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    scale_N: Tensor,
    take: Take | None = None,
) -> Tensor:
    """Sum over rows of `scale` times the cross-entropy of softmax(x weight^T + bias), nats.

    Args:
        x_ND: Hidden states.
        weight_VD: Of the head. Products are in the dtype that autocast asks for.
        bias_V: Of the head, or None.
        target_N: Ids below V, int64.
        scale_N: Of each row, float32.
        take: Where the weight's gradient is written; None for memory of its own.

    Returns:
        A float32 scalar, with gradients for the first three.

    Source: `tests/unit/test_the_head_needs_no_logits.py`.
    """
    device = x_ND.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x_ND, weight_VD = x_ND.to(dtype), weight_VD.to(dtype)
        bias_V = bias_V if bias_V is None else bias_V.to(dtype)
    take = take or _fresh(weight_VD.device)
    return cast(Tensor, _Chunked.apply(x_ND, weight_VD, bias_V, target_N, scale_N, take))


def _fresh(device: torch.device) -> Take:
    return lambda shape, dtype: torch.empty(shape, dtype=dtype, device=device)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        scale_N: Tensor,
        take: Take,
    ) -> Tensor:
        ctx.take = take
        grad_x_ND = torch.empty_like(x_ND) if ctx.needs_input_grad[0] else None
        nats_N, largest_N, sum_N = (torch.empty_like(scale_N) for _ in range(3))
        size = max(1, LOGITS_AT_ONCE // len(weight_VD))
        for rows in _pieces(len(x_ND), size):
            logits_PV = F.linear(x_ND[rows], weight_VD, bias_V).float()
            at_P1 = target_N[rows, None]
            largest_P1 = logits_PV.amax(1, keepdim=True)
            below_P1 = logits_PV.sub_(largest_P1).gather(1, at_P1)
            power_PV = logits_PV.exp_()
            sum_P1 = power_PV.sum(1, keepdim=True)
            largest_N[rows], sum_N[rows] = largest_P1[:, 0], sum_P1[:, 0]
            nats_N[rows] = (sum_P1.log() - below_P1)[:, 0]
            if grad_x_ND is not None:
                slope_PV = power_PV.scatter_add_(1, at_P1, -sum_P1)
                slope_PV.mul_(scale_N[rows, None] / sum_P1)
                torch.mm(slope_PV.to(x_ND.dtype), weight_VD, out=grad_x_ND[rows])
        ctx.save_for_backward(
            x_ND, weight_VD, bias_V, target_N, scale_N, largest_N, sum_N, grad_x_ND
        )
        return (scale_N * nats_N).sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        x_ND, weight_VD, bias_V, target_N, scale_N, largest_N, sum_N, grad_x_ND = ctx.saved_tensors
        if grad_x_ND is not None:
            grad_x_ND = grad_x_ND * grad.to(grad_x_ND.dtype)
        _, weight_trains, bias_trains, *_ = ctx.needs_input_grad
        if not (weight_trains or bias_trains):
            return grad_x_ND, None, None, None, None, None
        grad_weight_VD = ctx.take(weight_VD.shape, weight_VD.dtype) if weight_trains else None
        grad_bias_V = torch.empty_like(bias_V) if bias_trains else None
        for columns in _pieces(len(weight_VD), max(1, LOGITS_AT_ONCE // max(1, len(x_ND)))):
            bias_C = None if bias_V is None else bias_V[columns]
            slope_NC = F.linear(x_ND, weight_VD[columns], bias_C).float()
            slope_NC.sub_(largest_N[:, None]).exp_()
            inside = (target_N >= columns.start) & (target_N < columns.stop)
            rows = inside.nonzero()[:, 0]
            slope_NC[rows, target_N[rows] - columns.start] -= sum_N[rows]
            slope_NC = slope_NC.mul_((scale_N * grad / sum_N)[:, None]).to(x_ND.dtype)
            if grad_weight_VD is not None:
                torch.mm(slope_NC.t(), x_ND, out=grad_weight_VD[columns])
            if grad_bias_V is not None:
                grad_bias_V[columns] = slope_NC.sum(0)
        return grad_x_ND, grad_weight_VD, grad_bias_V, None, None, None


def _pieces(count: int, size: int) -> list[slice]:
    """0 .. count in stretches of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
