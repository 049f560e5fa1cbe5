"""One block of full 70B width trains a step: whole process under 6 GiB, and near the matmul rate.

    python benchmarks/full_width.py

Each side runs in a process of its own, in turn: StackWise's step (bfloat16 weights, lion8bit, steps
in backward), and Hugging Face's LlamaDecoderLayer of the same shape with AdamW in bfloat16, as one
would write it. 512 tokens. A round measures the machine's rate at 512 x 8192 x 8192 in bfloat16 and
then one step; what is printed is the step's share of the rate beside it. The time of moving the
weights is shown apart: forward and backward are what products can be compared with.

It exits with 1 if StackWise's process takes over 6 GiB, or its share is under 0.8.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import stackwise as sw
from stackwise.curriculum import stages
from stackwise.memory.flops import stage_flops_per_token
from stackwise.objective import Corrupted, Corruption, corrupt
from stackwise.report import table

TOKENS, WIDTH, ROUNDS = 512, 8192, 5
MOST_GIB, LEAST_SHARE = 6.0, 0.8


def experiment() -> sw.Experiment:
    """One block of Llama 2 70B over bytes, trained left to right."""
    return sw.Experiment.preset("llama-2-70b").replace(
        rack={"stacks": 1, "vocab": None},
        data={"seq_len": TOKENS},
        optim={
            "name": "lion8bit",
            "batch": 1,
            "grads": "in_backward",
            "ema": None,
            "clip": None,
            "lr": 1e-4,
        },
        precision={"compute": "bfloat16", "weights": "bfloat16", "rounding": "stochastic"},
        budget={"tokens": TOKENS},
    )


def matmul_rate() -> float:
    """FLOPs per second of the best of four products."""
    x, w = (torch.randn(n, WIDTH, dtype=torch.bfloat16) for n in (TOKENS, WIDTH))
    best = min(timed(lambda: x @ w.T) for _ in range(4))
    return 2 * TOKENS * WIDTH * WIDTH / best


def timed(do: Callable[[], object]) -> float:
    """Seconds that it takes."""
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def peak_gib() -> float:
    """The most that this process ever had resident, all of it."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) / 2**20


def ours() -> tuple[Callable[[], tuple[float, float]], float]:
    """A step of the product's own, and its FLOPs: seconds in all, and those of moving weights."""
    from stackwise.model.rack import Rack
    from stackwise.training.in_backward import stepping_of
    from stackwise.training.optim import Optimizer
    from stackwise.training.step import Trainee, setting_of, training_step
    from stackwise.training.trained import freeze_all_but

    exp = experiment()
    (stage,) = stages(exp)
    rack = Rack(exp.rack, exp.attention, sw.vocab_size(exp), dtype=torch.bfloat16)
    named = freeze_all_but(rack.parts(), stage)
    optimizer = Optimizer(exp.optim, named, rounding=exp.precision.rounding)
    stepping = stepping_of(exp.optim, named, optimizer, rack, compiled=False)
    trainee = Trainee(0, stage, named, optimizer, None, stepping)
    setting = setting_of(
        rack,
        stage,
        causal=True,
        micro_batch=None,
        checkpointing=False,
        compute=torch.bfloat16,
        device=torch.device("cpu"),
        clip=None,
        in_backward=stepping,
    )
    moving = 0.0
    move = optimizer.move

    def clocked(parameters: Any) -> None:
        nonlocal moving
        moving += timed(lambda: move(parameters))

    optimizer.move = clocked  # type: ignore[method-assign]
    noisy = noisy_batch(exp)

    def step() -> tuple[float, float]:
        nonlocal moving
        moving = 0.0
        seconds = timed(lambda: training_step(rack, noisy, setting, trainee, 1e-4))
        return seconds, moving

    return step, stage_flops_per_token(exp, stage).total * TOKENS


def noisy_batch(exp: sw.Experiment) -> Corrupted:
    """512 bytes of the King James text."""
    from stackwise.data.batches import batch_at
    from stackwise.training.start import dataset_of

    rule = Corruption(exp.objective, sw.vocab_size(exp), 1, exp.seed)
    return corrupt(rule, batch_at(dataset_of(exp, "."), 0, 1, exp.seed))


def theirs() -> tuple[Callable[[], tuple[float, float]], float]:
    """The same of Hugging Face's layer: its input's gradient is worked out, too, as in a rack."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    shape = experiment().rack
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=shape.d_ff,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        num_hidden_layers=1,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype(torch.bfloat16)
    layer = LlamaDecoderLayer(config, 0)
    torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-4, fused=True)
    x_BTD = torch.randn(1, TOKENS, WIDTH, dtype=torch.bfloat16).requires_grad_()
    places = torch.arange(TOKENS)[None]
    turns = LlamaRotaryEmbedding(config)(x_BTD, places)
    weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
    scores = 4 * TOKENS * WIDTH

    def forward_backward() -> None:
        found = layer(x_BTD, position_embeddings=turns, position_ids=places)
        y_BTD = found[0] if isinstance(found, tuple) else found
        y_BTD.backward(x_BTD.detach())

    def step() -> tuple[float, float]:
        passes = timed(forward_backward)
        moving = timed(optimizer.step)
        optimizer.zero_grad()
        return passes + moving, moving

    return step, (6 * weights + 3 * scores) * TOKENS


def side(name: str) -> None:
    """Run one side as a child: a line of JSON for each round, asked for by a line of input."""
    step, flops = {"StackWise": ours, "LlamaDecoderLayer": theirs}[name]()
    for _ in sys.stdin:
        rate = matmul_rate()
        seconds, moving = step()
        passes = seconds - moving
        print(json.dumps([rate, passes, moving, flops / passes / rate, peak_gib()]), flush=True)


def child(name: str) -> subprocess.Popen[str]:
    """Start one side."""
    command = [sys.executable, __file__, name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def asked(process: subprocess.Popen[str]) -> list[float]:
    """One round of a side."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return list(json.loads(process.stdout.readline()))


def main() -> int:
    """Print the table."""
    names = ["StackWise", "LlamaDecoderLayer"]
    sides = {name: child(name) for name in names}
    rounds: dict[str, list[list[float]]] = {name: [] for name in names}
    for number in range(ROUNDS + 1):
        for name, process in sides.items():
            found = asked(process)
            if number:  # the first one begins the optimizer's state
                rounds[name].append(found)
    rows, good = [], True
    for name, process in sides.items():
        process.communicate()
        rate, passes, moving, share, _ = (
            statistics.median(column) for column in zip(*rounds[name], strict=True)
        )
        peak = rounds[name][-1][-1]
        rows.append(
            [
                name,
                f"{rate / 1e9:.0f}",
                f"{passes:.2f}",
                f"{share:.3f}",
                f"{moving:.2f}",
                f"{peak:.2f}",
            ]
        )
        if name == "StackWise":
            good = share >= LEAST_SHARE and peak <= MOST_GIB
    head = ["one block, 512 tokens", "GFLOP/s at 512 x 8192 x 8192", "forward + backward s"]
    print(table([*head, "share of rate", "moving s", "whole process GiB"], rows))
    return 0 if good else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        side(sys.argv[1])
    else:
        sys.exit(main())
