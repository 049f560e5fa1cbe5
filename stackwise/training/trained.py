"""What trains in a stage, by part and tensor name, and the norms of its gradients.

Only what trains is ever handed to an optimizer, so that frozen tensors cannot move. How it moves is
in `optim.py`, its moving average in `average.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stackwise.stage import Stage, parts_trained

Named = dict[tuple[str, str], nn.Parameter]
State = dict[str, dict[str, Tensor]]


def freeze_all_but(parts: Mapping[str, nn.Module], stage: Stage) -> Named:
    """Let gradient reach those of `parts` that the stage trains, and nothing else.

    Returns:
        What trains: (part, tensor name) to parameter, in a fixed order.
    """
    trains = parts_trained(stage)
    named: Named = {}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(part in trains)
            if part in trains:
                named[part, name] = parameter
    return named


def global_norms(named: Named) -> tuple[float, dict[str, float]]:
    """The gradient norm of everything, and of each block (`s0.0`), embedding and head."""
    owned = {key: p.grad for key, p in named.items() if p.grad is not None}
    low = any(grad.dtype == torch.bfloat16 for grad in owned.values())
    dtype = torch.float32 if low else None  # of bfloat16: three digits are too few to clip by
    norms = torch.stack(torch._foreach_norm(list(owned.values()), 2, dtype)).tolist()  # one wait
    squares: dict[str, float] = {}
    for (part, name), norm in zip(owned, norms, strict=True):
        block = block_of(part, name)
        squares[block] = squares.get(block, 0.0) + norm * norm
    return math.sqrt(sum(squares.values())), {key: math.sqrt(v) for key, v in squares.items()}


def block_of(part: str, name: str) -> str:
    """`s1`, `blocks.0.ffn.up.weight` to `s1.0`; embedding and head are themselves."""
    return f"{part}.{name.split('.')[1]}" if name.startswith("blocks.") else part


def clip_(named: Named, norm: float, bound: float | None) -> None:
    """Scale all gradients so that their norm, now `norm`, is at most `bound`."""
    if bound is not None and norm > bound:
        grads = [p.grad for p in named.values() if p.grad is not None]
        torch._foreach_mul_(grads, bound / norm)
