"""How fast frozen weights are made, read and multiplied with, on the CPU at hand.

    python benchmarks/formats.py            one thread, then all; about a minute

Per format, of an 8192 x 2048 weight: millions of numbers quantised and dequantised per second (from
and to bfloat16), and the speed of a frozen linear over a plain one's, in bfloat16 on 512 tokens:
forward, forward inside `workspace` (reused), forward and backward to the input, and that inside
`workspace`. Each is the best of several turns, taken one after the other. Last, how much faster fp8
is read than by torch's cast.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stackwise.model.codes import rows_to_read
from stackwise.model.formats import FORMATS
from stackwise.model.frozen import FrozenLinear
from stackwise.model.workspace import workspace
from stackwise.report import table

OUTPUTS, INPUTS, TOKENS, TURNS = 8192, 2048, 512, 7


def seconds(functions: list[Callable[[], object]], turns: int = TURNS) -> list[float]:
    """The best time of each, over turns taken one after the other."""
    best = [float("inf")] * len(functions)
    for _ in range(turns):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def forward(layer: nn.Module, x_NI: Tensor) -> Tensor:
    """One product."""
    with torch.no_grad():
        return layer(x_NI)


def both(layer: nn.Module, x_NI: Tensor, direction_NO: Tensor) -> Tensor:
    """Forward, and backward to the input."""
    (grad_NI,) = torch.autograd.grad(layer(x_NI), x_NI, direction_NO)
    return grad_NI


def rows() -> list[list[str]]:
    """One per format."""
    weight_OI = torch.randn(OUTPUTS, INPUTS).bfloat16() * 0.02
    x_NI = torch.randn(TOKENS, INPUTS).bfloat16().requires_grad_()
    direction_NO = torch.randn(TOKENS, OUTPUTS).bfloat16()
    plain = nn.Linear(INPUTS, OUTPUTS, bias=False, dtype=torch.bfloat16).requires_grad_(False)
    made = []
    for name, kept_in in FORMATS.items():
        layer = FrozenLinear(kept_in, (OUTPUTS, INPUTS), kept_in.pack(weight_OI))
        (quantised,) = seconds([lambda f=kept_in: f.pack(weight_OI)], 2)
        (read,) = seconds([lambda layer=layer: layer.dequantised(torch.bfloat16)])
        plainly, ours = seconds([lambda m=m: forward(m, x_NI) for m in (plain, layer)])
        twice, ours_twice = seconds(
            [lambda m=m: both(m, x_NI, direction_NO) for m in (plain, layer)]
        )
        with workspace():
            again, reused = seconds([lambda m=m: forward(m, x_NI) for m in (plain, layer)])
            more, last = seconds([lambda m=m: both(m, x_NI, direction_NO) for m in (plain, layer)])
        rates = (weight_OI.numel() / 1e6 / time_ for time_ in (quantised, read))
        ratios = (plainly / ours, again / reused, twice / ours_twice, more / last)
        made.append([name, *(f"{r:.0f}" for r in rates), *(f"{r:.2f}" for r in ratios)])
    return made


def faster_than_the_cast() -> float:
    """How many times as fast fp8 is read as by torch's cast, a slice of the same size at a time."""
    weight_OI = torch.randn(OUTPUTS, INPUTS)
    packed = FORMATS["fp8"].pack(weight_OI)
    step = rows_to_read((OUTPUTS, INPUTS), weight_OI.device)

    def cast() -> None:
        for first in range(0, OUTPUTS, step):
            rows = slice(first, first + step)
            part_RI = packed["fp8"][rows].float()
            weight_OI[rows] = part_RI.mul_(packed["scale"][rows, None])

    def ours() -> None:
        shape = (OUTPUTS, INPUTS)
        FORMATS["fp8"].unpack(packed, shape, torch.float32, weight_OI.view(-1))

    slow, quick = seconds([cast, ours])
    return slow / quick


def main() -> None:
    """Print a table for one thread, and one for all."""
    head = ["format", "M/s made", "M/s read", "forward", "reused", "with backward", "reused"]
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        print(f"{threads} threads\n{table(head, rows())}", flush=True)
        print(f"fp8 is read {faster_than_the_cast():.1f} times as fast as by a cast\n", flush=True)


if __name__ == "__main__":
    main()
