"""How fast a training step is, as ratios measured in one run.

    python benchmarks/step.py            prints four tables and exits 1 if a bound is missed

- The toy's end-to-end step against Hugging Face's Llama of the same shape, objective and dtype:
  eager, compiled layer by layer, and compiled whole. Tokens per second, taken in turn, and the
  median over the turns of ours over theirs. Bound: at least 1.
- `small` against the machine's matrix rate: FLOPs per second of a step over those of its own
  products alone, forward and backward, at their shapes. Bound: at least 0.6.
- Waiting for data: the share of a run's time in which the step waits for its batch. Bound: 1 %.
- Import: `import stackwise` against `import torch`. Bound: half a second more.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaModel

import stackwise as sw
from stackwise.data.batches import batch_at, prefetch
from stackwise.memory.flops import stage_flops_per_token, vocab_size
from stackwise.model.shape import d_ff, total_blocks
from stackwise.objective import Corrupted, Corruption, corrupt
from stackwise.report import table
from stackwise.training.layers import grow_tables, layers
from stackwise.training.optim import Optimizer
from stackwise.training.start import dataset_of
from stackwise.training.step import Trainee, setting_of, training_step
from stackwise.training.trained import freeze_all_but

TOY_ROUNDS = 60
SMALL_ROUNDS = 3

Mode = Literal["eager", "by layer", "whole"]


def noisy_batch(exp: sw.Experiment, step: int = 0) -> Corrupted:
    """One corrupted batch of an experiment."""
    data = dataset_of(exp, ".")
    rule = Corruption(exp.objective, vocab_size(exp), exp.optim.batch, exp.seed)
    return corrupt(rule, batch_at(data, step * exp.optim.batch, exp.optim.batch, exp.seed))


def our_step(exp: sw.Experiment, mode: Mode) -> Callable[[Corrupted], object]:
    """The trainer's own step, end to end, without the average (theirs has none)."""
    stage = sw.stages(exp.replace(curriculum="end_to_end"))[0]
    rack = sw.Rack(exp.rack, exp.attention, vocab_size(exp))
    grow_tables(rack, stage.path, exp.data.seq_len, torch.device("cpu"))
    named = freeze_all_but(rack.parts(), stage)
    trainee = Trainee(0, stage, named, Optimizer(exp.optim, named), None)
    setting = setting_of(
        rack,
        stage,
        causal=False,
        micro_batch=None,
        checkpointing=False,
        compute=torch.float32,
        device=torch.device("cpu"),
        clip=exp.optim.clip,
        compiled=mode == "whole",
    )
    if mode == "by layer":
        setting = replace(setting, rest=layers(rack, stage.path, compiled=True, single=True))
    return lambda noisy: training_step(rack, noisy, setting, trainee, 1e-3)


def their_step(exp: sw.Experiment, mode: Mode) -> Callable[[Corrupted], object]:
    """Hugging Face's Llama at its best: bidirectional, the head at counted positions only."""
    rack = exp.rack
    model = LlamaModel(
        LlamaConfig(
            vocab_size=vocab_size(exp) + 2,
            hidden_size=rack.d_model,
            intermediate_size=d_ff(rack),
            num_hidden_layers=total_blocks(rack),
            num_attention_heads=rack.heads,
            num_key_value_heads=rack.heads,
            max_position_embeddings=exp.data.seq_len,
            attn_implementation="sdpa",
        )
    )
    for layer in model.layers:
        layer.self_attn.is_causal = False  # with no mask given, that is all that decides
        if mode == "by layer":
            layer.compile()
    if mode == "whole":
        model.compile()
    head = torch.nn.Linear(rack.d_model, vocab_size(exp), bias=False)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step(noisy: Corrupted) -> float:
        x_BTD = model(input_ids=noisy.input_BT, use_cache=False).last_hidden_state
        logits_NV = head(x_BTD[noisy.counted_BT])
        nats_N = F.cross_entropy(logits_NV, noisy.target_N, reduction="none")
        loss = (nats_N * noisy.weight_N).sum() / noisy.input_BT.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, exp.optim.clip or 1e9, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def in_turn(
    ours: Callable[[Corrupted], object],
    theirs: Callable[[Corrupted], object],
    noisy: Corrupted,
    rounds: int,
) -> tuple[float, float, float]:
    """Median seconds of each, and the median of theirs over ours, turn by turn."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds + 2):  # the first two warm up
        for arm in (0, 1) if number % 2 else (1, 0):
            began = time.perf_counter()
            (ours, theirs)[arm](noisy)
            if number >= 2:
                seconds[arm].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return *(statistics.median(times) for times in seconds.values()), statistics.median(ratios)


def against_llama() -> bool:
    """The toy's step beside Hugging Face's."""
    exp = sw.Experiment.preset("toy")
    noisy = noisy_batch(exp)
    tokens = noisy.input_BT.numel()
    rows, good = [], True
    for mode in get_args(Mode):
        *seconds, ratio = in_turn(our_step(exp, mode), their_step(exp, mode), noisy, TOY_ROUNDS)
        good &= ratio >= 1
        rows.append([mode, *(f"{tokens / each:,.0f}" for each in seconds), f"{ratio:.3f}"])
    print(table(["toy, tokens per second", "StackWise", "Llama", "ratio"], rows), "\n")
    return good


def products_alone(exp: sw.Experiment) -> tuple[float, Callable[[Corrupted], object]]:
    """FLOPs, and the products of one block and of the head, forward and backward, by themselves."""
    rack, rows = exp.rack, exp.optim.batch * exp.data.seq_len
    wide, vocab = d_ff(rack), vocab_size(exp)
    shapes = (
        [(rack.d_model, rack.d_model)] * 4 + [(rack.d_model, wide)] * 2 + [(wide, rack.d_model)]
    )
    blocks = [(rows, a, b, total_blocks(rack)) for a, b in shapes]
    products = [*blocks, (rows // 2, rack.d_model, vocab, 1)]
    flops = sum(6.0 * n * a * b * times for n, a, b, times in products)
    tensors = [
        (torch.randn(n, a), torch.randn(b, a), torch.randn(n, b), times)
        for n, a, b, times in products
    ]

    def run(noisy: Corrupted) -> None:
        for x, w, y, times in tensors:
            for _ in range(times):
                F.linear(x, w)
                y @ w
                y.T @ x

    return flops, run


def against_products() -> bool:
    """`small` against the rate of its own products."""
    exp = sw.Experiment.preset("small")
    noisy = noisy_batch(exp)
    cost = stage_flops_per_token(exp, sw.stages(exp.replace(curriculum="end_to_end"))[0])
    counted = int(noisy.counted_BT.sum())
    flops = (cost.total - cost.head) * noisy.input_BT.numel() + cost.head_per_position * counted
    bare, run = products_alone(exp)
    step, products, _ = in_turn(our_step(exp, "eager"), run, noisy, SMALL_ROUNDS)
    rates = flops / step, bare / products
    share = rates[0] / rates[1]
    row = ["float32", f"{rates[0] / 1e9:.1f}", f"{rates[1] / 1e9:.1f}", f"{share:.3f}"]
    print(table(["small, GFLOP/s", "step", "its products alone", "share"], [row]), "\n")
    return share >= 0.6


def waiting() -> bool:
    """How long a step waits for its batch."""
    exp = sw.Experiment.preset("toy")
    data, step = dataset_of(exp, "."), our_step(exp, "eager")
    rule = Corruption(exp.objective, vocab_size(exp), exp.optim.batch, exp.seed)
    size = exp.optim.batch
    items = (corrupt(rule, batch_at(data, i * size, size, exp.seed)) for i in range(40))
    waited, began = 0.0, time.perf_counter()
    with prefetch(items) as batches:
        stream = iter(batches)
        step(next(stream))
        began = time.perf_counter()
        while True:
            asked = time.perf_counter()
            noisy = next(stream, None)
            waited += time.perf_counter() - asked
            if noisy is None:
                break
            step(noisy)
    share = waited / (time.perf_counter() - began)
    print(table(["waiting for data", "share of time"], [["toy, 39 steps", f"{share:.4%}"]]), "\n")
    return share <= 0.01


def importing() -> bool:
    """`import stackwise` and its experiment, beside `import torch`."""

    def seconds(code: str) -> float:
        times = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, cwd=tempfile.gettempdir())
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    base = seconds("import torch")
    plain = seconds("import torch, stackwise")
    used = seconds("import torch, stackwise; stackwise.Experiment.preset('toy')")
    rows = [["import torch", f"{base:.2f}"], ["and stackwise", f"{plain:.2f}"]]
    rows.append(["and a preset", f"{used:.2f}"])
    print(table(["seconds", ""], rows))
    return plain <= base + 0.5


def main() -> int:
    """Print all tables."""
    torch.manual_seed(0)
    good = [against_llama(), against_products(), waiting(), importing()]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
