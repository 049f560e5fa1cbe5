"""How the cost of each kind of attention grows with the length of the text: 512 to 8192 tokens.

One attention layer, forward and backward, in both directions; the FLOPs are the ledger's. Twice the
tokens take twice the FLOPs where a kind is linear, and four times the scores where it compares all
pairs. Times are of the processor, with one thread, the least of a few taken in turn; the gates are
on every doubling where a kind is linear, and on the last one else. `python
benchmarks/attention_length.py [--least 512 --most 8192 --width 64]`.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import torch

from stackwise.choice import parse
from stackwise.memory.heap import settle
from stackwise.model.attention import ATTENTION, build_attention, kind_of
from stackwise.model.shape import RackShape, attention_shape

LINEAR = ("kernel", "linear", "window")
TIME, QUADRATIC = 2.4, 2.8  # most that a linear kind takes of twice the tokens; least of the others
REPEATS = 4


def main() -> int:
    """Print the table; 1 if a kind grows otherwise than it says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--least", type=int, default=512)
    parser.add_argument("--most", type=int, default=8192)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settle()  # as a run does: else every large buffer is cleared anew by the system
    lengths = [options.least]
    while lengths[-1] < options.most:
        lengths.append(2 * lengths[-1])
    head = "".join(f"{length:>16}" for length in lengths[1:])
    print(f"time and score FLOPs of twice the tokens, as a multiple; width {options.width}")
    print(f"{'kind':>8} {'direction':<14}{head}   ms at {lengths[-1]}")
    wrong = [
        fault
        for name in ATTENTION
        for causal in (False, True)
        for fault in row(name, causal, lengths, options.width)
    ]
    for fault in wrong:
        print(f"FAILED {fault}")
    return bool(wrong)


def row(name: str, causal: bool, lengths: list[int], width: int) -> list[str]:
    """One line of the table, and what is wrong with it."""
    seconds, flops = measured(name, causal, lengths, width)
    times = [b / a for a, b in pairwise(seconds)]
    counts = [b / a for a, b in pairwise(flops)]
    said = "".join(f"{t:>9.2f} {c:>6.2f}" for t, c in zip(times, counts, strict=True))
    where = "causal" if causal else "bidirectional"
    print(f"{name:>8} {where:<14}{said}{1e3 * seconds[-1]:>12.1f}", flush=True)
    label = f"{name}, {where}"
    if name in LINEAR:
        found = [f"{label}: FLOPs x {counts[-1]}, not 2"] if counts[-1] != 2 else []
        slow = max(times) > TIME
        return found + ([f"{label}: time x {max(times):.2f} > {TIME}"] if slow else [])
    found = [f"{label}: FLOPs x {counts[-1]}, not 4"] if counts[-1] != 4 else []
    fast = times[-1] < QUADRATIC
    return found + ([f"{label}: time x {times[-1]:.2f} < {QUADRATIC}"] if fast else [])


def measured(
    name: str, causal: bool, lengths: list[int], width: int
) -> tuple[list[float], list[float]]:
    """Seconds forward and backward, and score FLOPs forward, of one text of each length."""
    params = parse(ATTENTION, name, "attention", "kind")
    shape = attention_shape(RackShape(d_model=width, heads=width // 32), 0)
    torch.manual_seed(0)
    layer = build_attention(shape, params)
    kind = kind_of(params)
    seconds = [float("inf")] * len(lengths)
    for _ in range(REPEATS):
        for place, length in enumerate(lengths):
            x_BTD = torch.randn(1, length, width, requires_grad=True)
            begin = time.process_time()
            layer(x_BTD, causal=causal).sum().backward()
            seconds[place] = min(seconds[place], time.process_time() - begin)
    flops = [n * kind.score_flops(shape, params, n, causal).pairs for n in lengths]
    return seconds, flops


if __name__ == "__main__":
    raise SystemExit(main())
