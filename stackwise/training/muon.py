"""Muon: matrices inside of stacks move along their momentum, made orthogonal.

Keller Jordan (https://kellerjordan.github.io/posts/muon), as torch.optim.Muon has it, to the last
bit (`tests/unit/test_muon_is_torchs.py`): Nesterov momentum of 0.95, five Newton-Schulz iterations
in bfloat16. Each step is scaled by 0.2 sqrt(max(rows, columns)), so that its root mean square is
that of AdamW's, and one learning rate and one weight decay serve both (arXiv 2502.16982, eq. 4;
torch's `match_rms_adamw`).

What is no hidden matrix (embedding, head, norms, biases) moves by AdamW, at the same rate. A matrix
in which projections lie one under another, as q, k and v of one attention layer, is one matrix
here: it is made orthogonal as a whole, as torch.optim.Muon does with what it is handed.

A tensor without a gradient does not move. (Keller Jordan's own code takes a missing gradient for
zero, so that what is frozen goes on along its momentum, and decays.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stackwise.training.aim import Aim, Along, Kept, Shape, rows_at_once

MOMENTUM = 0.95
LEAST_NORM = 1e-7  # that a matrix is divided by
A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic, steepest at zero
ITERATIONS = 5


def start(weight: Tensor) -> Kept:
    """The state before the first step."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=weight.device),
        "momentum": torch.zeros_like(weight, dtype=torch.float32),
    }


def look(grad_RC: Tensor, kept: Kept, at_once: int) -> Along:
    """Move the momentum, and make where it points orthogonal.

    Args:
        grad_RC: The gradient.
        kept: The state.
        at_once: Numbers that are float32 copies at a time.
    """
    kept["step"] += 1
    turned_RC = orthogonal(pointed(grad_RC, kept["momentum"], at_once))
    return lambda first, end: turned_RC[first:end]


def pointed(grad_RC: Tensor, mean_RC: Tensor, at_once: int) -> Tensor:
    """Move the momentum `mean_RC`; and, by Nesterov, where it points, in bfloat16."""
    wide = rows_at_once(grad_RC.shape[1], at_once)
    to_RC = torch.empty_like(grad_RC, dtype=torch.bfloat16)
    pieces = (tensor.split(wide) for tensor in (grad_RC, mean_RC, to_RC))
    for grad_rC, mean_rC, to_rC in zip(*pieces, strict=True):
        exact_rC = grad_rC.float()
        mean_rC.lerp_(exact_rC, 1 - MOMENTUM)
        to_rC.copy_(exact_rC.lerp(mean_rC, MOMENTUM))
    return to_RC


def orthogonal(x_RC: Tensor) -> Tensor:
    """A matrix with its singular values brought near 1: of U S V', roughly U V'. It is used up.

    Newton-Schulz, x <- a x + (b + c x x') x x' x, on the flatter side.
    """
    rows, columns = x_RC.shape
    x_MN = x_RC.T if rows > columns else x_RC
    del x_RC
    x_MN.div_(x_MN.norm().clamp(min=LEAST_NORM))
    for _ in range(ITERATIONS):
        gram_MM = x_MN @ x_MN.T
        factor_MM = torch.addmm(gram_MM, gram_MM, gram_MM, beta=B, alpha=C)
        x_MN = torch.addmm(x_MN, factor_MM, x_MN, beta=A)
        del gram_MM, factor_MM
    return x_MN.T if rows > columns else x_MN


def takes(shape: Shape, hidden: bool) -> bool:
    """Matrices inside of stacks."""
    return hidden and len(shape) == 2


def scale(shape: Shape) -> float:
    """What the rate is multiplied by, so that a step is as large as AdamW's."""
    return 0.2 * math.sqrt(max(shape))


def state_bytes(shape: Shape) -> int:
    """Bytes of the state: the momentum, float32, and the counted step."""
    return 4 * math.prod(shape) + 4


def work_bytes(shape: Shape, at_once: int) -> int:
    """Bytes beside weights, gradient and state: two bfloat16 matrices and two of the flatter side.

    Or, while the first of them is filled, a few float32 rows beside it.
    """
    numbers, flat = math.prod(shape), min(shape)
    return max(4 * numbers + 4 * flat * flat, 2 * numbers + 12 * min(numbers, at_once))


def flops(shape: Shape) -> int:
    """FLOPs of the matrix products of a step: 2 m m n, 2 m m m and 2 m m n, five times.

    Source: `tests/unit/test_newton_schulz_is_in_the_ledger.py`.
    """
    m, n = sorted(shape)
    return ITERATIONS * (4 * m * m * n + 2 * m**3)


AIM = Aim(takes, start, look, scale, state_bytes, work_bytes, flops)
