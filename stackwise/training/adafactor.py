"""Adafactor: of a matrix's second moment only the means of its rows and of its columns are kept.

Shazeer and Stern (arXiv 1804.04235), algorithm 4, without momentum: the second moment decays by
1 - t^-0.8, and a step whose root mean square is over 1 is scaled down to that. Their step is
relative to the weights' size; here `optim.lr` is the rate as it stands (absolute, as transformers'
Adafactor with `scale_parameter=False, relative_step=False`), so that one schedule serves every
optimizer. Weight decay is decoupled. `tests/unit/test_adafactor_is_transformers.py`.

A tensor of more than two axes is a matrix of its first by all others. Vectors keep their whole
second moment.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stackwise.training.aim import Aim, Along, Kept, Shape, rows_at_once, rows_of

if TYPE_CHECKING:
    from stackwise.config import Optim

DECAY = -0.8  # of the second moment: 1 - t^-0.8
TINY = 1e-30  # added to squares (epsilon 1 of the paper)
LARGEST = 1.0  # root mean square of a step before the rate


def start_matrix(weight: Tensor) -> Kept:
    """The state of a matrix before the first step."""
    rows, columns = rows_of(tuple(weight.shape))
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device),
        "row_means": torch.zeros(rows, device=weight.device),
        "column_means": torch.zeros(columns, device=weight.device),
    }


def look(grad: Tensor, kept: Kept, at_once: int) -> Along:
    """Move the means of squares by rows and columns, and find out how large the step would be.

    Args:
        grad: The gradient.
        kept: The state.
        at_once: Numbers that are float32 copies at a time.
    """
    kept["step"] += 1
    new = float(kept["step"]) ** DECAY
    rows, columns = rows_of(tuple(grad.shape))
    grad_RC, wide = grad.reshape(rows, columns), rows_at_once(columns, at_once)
    row_R, column_C = kept["row_means"], kept["column_means"]
    sum_C = torch.zeros_like(column_C)
    for grad_rC, row_r in zip(grad_RC.split(wide), row_R.split(wide), strict=True):
        square_rC = grad_rC.float().square().add_(TINY)
        row_r.lerp_(square_rC.mean(1), new)
        sum_C += square_rC.sum(0)
    column_C.lerp_(sum_C / rows, new)
    across_R, down_C = (row_R / row_R.mean()).rsqrt_(), column_C.rsqrt()

    def along(first: int, end: int) -> Tensor:
        return grad_RC[first:end].float() * across_R[first:end, None] * down_C

    squares = [along(r, min(r + wide, rows)).square_().sum() for r in range(0, rows, wide)]
    mean = float(torch.stack(squares).sum()) / grad.numel()
    over = max(1.0, math.sqrt(mean) / LARGEST)
    return lambda first, end: along(first, end).div_(over)


def start_vector(weight: Tensor) -> Kept:
    """The state of a vector before the first step."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device),
        "square": torch.zeros_like(weight, dtype=torch.float32),
    }


def move_vectors(
    optim: Optim,
    rate: float,
    decay: float,
    weights: list[Tensor],
    grads: list[Tensor],
    states: list[Kept],
) -> None:
    """One step of what is not factored; vectors do not decay."""
    for weight, grad, kept in zip(weights, grads, states, strict=True):
        kept["step"] += 1
        square = kept["square"].lerp_(grad.square().add_(TINY), float(kept["step"]) ** DECAY)
        step = square.rsqrt().mul_(grad)
        over = max(1.0, float(step.square().mean().sqrt()) / LARGEST)
        weight.mul_(1 - rate * decay).sub_(step, alpha=rate / over)


def takes(shape: Shape, hidden: bool) -> bool:
    """All that is no vector."""
    return len(shape) >= 2


def state_bytes(shape: Shape) -> int:
    """Bytes of the state of a matrix: a number for each row and column, and the counted step."""
    return 4 * sum(rows_of(shape)) + 4


def work_bytes(shape: Shape, at_once: int) -> int:
    """Bytes beside weights, gradient and state: a few rows in float32, three times over."""
    rows, columns = rows_of(shape)
    return 12 * min(rows, rows_at_once(columns, at_once)) * columns + 4 * rows + 8 * columns


AIM = Aim(takes, start_matrix, look, lambda shape: 1.0, state_bytes, work_bytes, lambda shape: 0)
