"""What the loss of a head costs: plain, in chunks, and by torch's own chunked loss.

    python benchmarks/head.py [threads]

Forward and backward in seconds, the best of three, and the resident high-water mark of a process of
its own. The chunks of all three hold 2^24 logits.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from stackwise.report import bytes_text, table
from stackwise.training.chunked import LOGITS_AT_ONCE, chunked_loss

KINDS = ["plain", "in chunks", "torch's"]
CASES = [  # rows, width, entries, dtype, whether the head trains
    (2048, 1024, 32_000, "bfloat16", True),
    (2048, 1024, 32_000, "bfloat16", False),
    (2048, 1024, 32_000, "float32", True),
    (1024, 1024, 128_256, "bfloat16", True),
    (1024, 1024, 128_256, "bfloat16", False),
]


def loss(kind: str, x_ND: Tensor, weight_VD: Tensor, target_N: Tensor, scale_N: Tensor) -> Tensor:
    """One of KINDS."""
    if kind == "in chunks":
        return chunked_loss(x_ND, weight_VD, None, target_N, scale_N)
    if kind == "plain":
        logits_NV = F.linear(x_ND, weight_VD).float()
        nats_N = F.cross_entropy(logits_NV, target_N, reduction="none")
    else:
        rows = max(1, LOGITS_AT_ONCE // len(weight_VD))
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
        nats_N = F.linear_cross_entropy(
            x_ND, weight_VD, target_N, reduction="none", options=options
        )
    return (scale_N * nats_N).sum()


def measure(kind: str, case: int, threads: int) -> None:
    """Print seconds and bytes."""
    torch.set_num_threads(threads)
    N, D, V, name, trains = CASES[case]
    dtype = getattr(torch, name)
    x_ND = torch.randn(N, D).to(dtype).requires_grad_()
    weight_VD = torch.empty(V, D, dtype=dtype).normal_(std=0.02).requires_grad_(trains)
    target_N, scale_N = torch.randint(V, (N,)), torch.rand(N)
    best = float("inf")
    for _ in range(3):
        x_ND.grad = weight_VD.grad = None
        began = time.perf_counter()
        loss(kind, x_ND, weight_VD, target_N, scale_N).backward()
        best = min(best, time.perf_counter() - began)
    print(best, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> int:
    """Print the table; every figure from a process of its own."""
    threads = sys.argv[1] if len(sys.argv) > 1 else str(torch.get_num_threads())
    if len(sys.argv) > 2:
        measure(KINDS[int(sys.argv[2])], int(sys.argv[3]), int(threads))
        return 0
    rows = []
    for case, (N, D, V, name, trains) in enumerate(CASES):
        cells = []
        for kind in range(len(KINDS)):
            call = [sys.executable, __file__, threads, str(kind), str(case)]
            out = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
            cells.append(f"{float(out[0]):.2f} s, {bytes_text(int(out[1]))}")
        head = "trained" if trains else "frozen"
        rows.append([f"{N} x {D} x {V}, {name}, {head}", *cells])
    print(table([f"{threads} threads", *KINDS], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
