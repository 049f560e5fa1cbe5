"""How fast optimizers step, by size of slice and by how weights are kept, beside torch's fused.

    python benchmarks/optimizers.py [threads]

One matrix of 33.5 M numbers; millions of numbers per second, the best of three steps. `SLICE` in
`stackwise/training/optim.py` is chosen by the first table. A block of Llama-70B width has 856 M.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import nn

from stackwise.config import Optim
from stackwise.report import table
from stackwise.training import optim as module
from stackwise.training.optim import Optimizer, Rounding
from stackwise.training.updates import OPTIMIZERS

SHAPE = (4096, 8192)
ROUNDS = 3
SLICES = [1 << power for power in (16, 18, 20, 22, 25)]


def rate(step: Callable[[], object]) -> float:
    """Numbers stepped per second, in millions."""
    step()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - began)
    return SHAPE[0] * SHAPE[1] / best / 1e6


def ours(name: str, dtype: torch.dtype, rounding: Rounding, size: int = module.SLICE) -> float:
    """A step of `Optimizer`, in slices of `size`."""
    weight = nn.Parameter(torch.full(SHAPE, 0.02, dtype=dtype))
    weight.grad = torch.full(SHAPE, 1e-3, dtype=dtype)
    optimizer = Optimizer(Optim(name=name), {("s0", "w"): weight}, rounding=rounding)
    with patch.object(module, "SLICE", size):
        return rate(optimizer.step)


def fused() -> float:
    """torch's fused AdamW on float32 weights."""
    weight = nn.Parameter(torch.full(SHAPE, 0.02))
    weight.grad = torch.full(SHAPE, 1e-3)
    return rate(torch.optim.AdamW([weight], fused=True).step)


def main() -> int:
    """Print both tables."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    low, names = torch.bfloat16, [name for name, rule in OPTIMIZERS.items() if not rule.missing()]
    print(f"{torch.get_num_threads()} threads; M numbers per second\n")
    rows = [
        [f"{size:,}", *(f"{ours(name, low, 'master', size):.0f}" for name in names)]
        for size in SLICES
    ]
    print(table(["slice, bfloat16 with master", *names], rows), "\n")
    kinds: list[tuple[str, torch.dtype, Rounding]] = [
        ("float32", torch.float32, "master"),
        ("bfloat16, master", low, "master"),
        ("bfloat16, stochastic", low, "stochastic"),
    ]
    rows = [[kind, *(f"{ours(name, *how):.0f}" for name in names)] for kind, *how in kinds]
    print(table(["weights", *names], [*rows, ["torch's fused AdamW", f"{fused():.0f}", "", ""]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
