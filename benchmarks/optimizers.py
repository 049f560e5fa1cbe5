"""How fast optimizers step, by size of slice and by how weights are kept, beside torch's fused.

    python benchmarks/optimizers.py [threads] [rows columns]

One matrix in a stack, of 33.5 M numbers unless another is asked for; millions of numbers per
second, the best of three steps. `SLICE` in `stackwise/training/optim.py` is chosen by the first
table. A block of Llama-70B width has 856 M. What muon does of its matrix products stands below: the
rate of its numbers falls with the width, that of its FLOPs does not.
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

LARGE = (4096, 8192)
ROUNDS = 3
SLICES = [1 << power for power in (16, 18, 20, 22, 25)]


def rate(step: Callable[[], object], shape: tuple[int, int]) -> float:
    """Numbers stepped per second, in millions."""
    step()
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - began)
    return shape[0] * shape[1] / best / 1e6


def ours(
    name: str,
    shape: tuple[int, int],
    dtype: torch.dtype,
    rounding: Rounding,
    size: int = module.SLICE,
) -> float:
    """A step of `Optimizer`, in slices of `size`."""
    weight = nn.Parameter(torch.full(shape, 0.02, dtype=dtype))
    weight.grad = torch.full(shape, 1e-3, dtype=dtype)
    optimizer = Optimizer(Optim(name=name), {("s0", "w"): weight}, rounding=rounding)
    with patch.object(module, "SLICE", size):
        return rate(optimizer.step, shape)


def fused(shape: tuple[int, int]) -> float:
    """torch's fused AdamW on float32 weights."""
    weight = nn.Parameter(torch.full(shape, 0.02))
    weight.grad = torch.full(shape, 1e-3)
    return rate(torch.optim.AdamW([weight], fused=True).step, shape)


def main() -> int:
    """Print both tables."""
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
    low, names = torch.bfloat16, [name for name, rule in OPTIMIZERS.items() if not rule.missing()]
    shape = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else LARGE
    print(f"{torch.get_num_threads()} threads, {shape[0]} x {shape[1]}; M numbers per second\n")
    rows = [
        [f"{size:,}", *(f"{ours(name, shape, low, 'master', size):.0f}" for name in names)]
        for size in SLICES
    ]
    print(table(["slice, bfloat16 with master", *names], rows), "\n")
    kinds: list[tuple[str, torch.dtype, Rounding]] = [
        ("float32", torch.float32, "master"),
        ("bfloat16, master", low, "master"),
        ("bfloat16, stochastic", low, "stochastic"),
    ]
    found = [[ours(name, shape, *how) for name in names] for _, *how in kinds]
    rows = [
        [kind, *(f"{each:.0f}" for each in row)]
        for (kind, *_), row in zip(kinds, found, strict=True)
    ]
    rows.append(["torch's fused AdamW", f"{fused(shape):.0f}", *[""] * (len(names) - 1)])
    print(table(["weights", *names], rows))
    if (aim := OPTIMIZERS["muon"].aim) is not None:
        numbers = found[0][names.index("muon")] * 1e6
        flops = aim.flops(shape) / (shape[0] * shape[1]) * numbers
        print(f"\nmuon's products: {flops / 1e9:.0f} GFLOP/s, elementwise work and all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
