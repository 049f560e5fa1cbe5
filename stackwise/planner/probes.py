"""What calibration measures: small pieces of the training step itself, each at a few sizes.

A probe is a name, a size, the work of one call, and a function that makes what is timed. The pieces
are the product's own: its block with products and attention left out, its optimizer, its loss, its
formats. How they are repeated and what is taken of the repetitions is in `calibrate.py`; disks are
in `disks.py`.

Shapes: R rows, D width, F wide, V entries; B samples, T tokens, H heads, E numbers per head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackwise.model.attention.mha import attend
from stackwise.model.formats import FORMATS, missing_package
from stackwise.objective import loss_at
from stackwise.planner.bare import HEAD, around_probes
from stackwise.planner.hardware import OPTIMIZER_KINDS
from stackwise.planner.probe import Probe, Run, again
from stackwise.planner.together import block_probes
from stackwise.training.average import Average
from stackwise.training.norms import clip_, global_norms
from stackwise.training.optim import Optimizer
from stackwise.training.trained import Named
from stackwise.training.updates import OPTIMIZERS
from stackwise.trunk.pages import fresh

DTYPES = ("float32", "bfloat16")
CALLS = 100
FRESH = 1 << 26


def probes_for(device: torch.device) -> Iterator[Probe]:
    """All probes of a device but those of disks, small ones first within a curve."""
    for dtype in DTYPES:
        yield from matmul_probes(device, dtype)
        yield from attention_probes(device, dtype)
        yield from around_probes(device, dtype)
        yield from block_probes(device, dtype)
        yield from loss_probes(device, dtype)
    yield from optimizer_probes(device)
    yield from passing_probes(device)
    yield from format_probes(device)
    yield from memory_probes(device)


def matmul_probes(device: torch.device, dtype: str) -> Iterator[Probe]:
    """The three products of training at once: forward, the input's gradient, the weight's."""
    sides = (16, 64, 256, 1024) if device.type == "cpu" else (64, 256, 1024, 4096, 8192)
    kind = getattr(torch, dtype)
    for side in sides:
        wide = 2048 if side < 1024 and device.type == "cpu" else max(side, 1024)

        def make(side: int = side, wide: int = wide) -> Callable[[], Run]:
            x_RD = torch.randn(side, wide, device=device).to(kind)
            w_DD = torch.randn(wide, wide, device=device).to(kind)

            def do() -> None:
                y_RD = x_RD @ w_DD.T
                y_RD @ w_DD
                y_RD.T @ x_RD

            return again(do)

        yield Probe(f"matmul/{dtype}", side, 6.0 * side * wide * wide, "FLOP", make)


def attention_probes(device: torch.device, dtype: str) -> Iterator[Probe]:
    """Softmax attention by the function that blocks call, forward and backward."""
    tokens = (64, 256, 1024) if device.type == "cpu" else (512, 2048, 8192)
    most = 1 << 11 if device.type == "cpu" else 1 << 15
    for T in tokens:
        shape = (max(1, most // T), 4, T, HEAD)
        pairs = 4.0 * shape[0] * shape[1] * T * T * HEAD
        for mask in ("causal", "full"):
            causal = mask == "causal"

            def heads(shape: tuple[int, ...] = shape) -> list[Tensor]:
                kind = getattr(torch, dtype)
                drawn = (torch.randn(shape, device=device).to(kind) for _ in range(3))
                return [each.requires_grad_() for each in drawn]

            def forward(causal: bool = causal, heads: Any = heads) -> Callable[[], Run]:
                q, k, v = heads()
                return again(lambda: attend(q, k, v, causal=causal, window=None))

            def backward(causal: bool = causal, heads: Any = heads) -> Callable[[], Run]:
                q, k, v = heads()

                def prepare() -> Run:
                    y = attend(q, k, v, causal=causal, window=None)
                    return partial(torch.autograd.grad, y, (q, k, v), torch.ones_like(y))

                return prepare

            name = f"attention/{dtype}/{mask}"
            yield Probe(f"{name}/forward", T, pairs, "FLOP", forward)
            yield Probe(f"{name}/backward", T, 2 * pairs, "FLOP", backward)


def loss_probes(device: torch.device, dtype: str) -> Iterator[Probe]:
    """The cross-entropy of logits that are there, forward and backward."""
    for rows, entries in ((64, 256), (512, 1024), (1024, 8192)):

        def make(rows: int = rows, entries: int = entries) -> Callable[[], Run]:
            drawn = torch.randn(rows, entries, device=device)
            logits_RV = drawn.to(getattr(torch, dtype)).requires_grad_()
            target_R = torch.zeros(rows, dtype=torch.int64, device=device)
            weight_R = torch.ones(rows, device=device)

            def do() -> None:
                loss = loss_at(logits_RV.float(), target_R, weight_R, rows)
                torch.autograd.grad(loss, logits_RV)

            return again(do)

        logits = float(rows * entries)
        yield Probe(f"loss/{dtype}", logits, logits, "logit", make)


def trained(numbers: int, dtype: str, device: torch.device, part: str = "s0") -> Named:
    """Two matrices of a part with gradients, so many numbers in all."""
    rows = max(1, numbers // 2 // 512)
    named: Named = {}
    for name in ("a", "b"):
        weight = torch.randn(rows, 512, device=device).to(getattr(torch, dtype))
        named[part, name] = nn.Parameter(weight)
        named[part, name].grad = torch.randn_like(weight) * 1e-3
    return named


def optimizer_probes(device: torch.device) -> Iterator[Probe]:
    """A step of each rule that can run here, by what weights are kept in."""
    from stackwise.config import Optim

    counts = (1 << 16, 1 << 20, 1 << 23) if device.type == "cpu" else (1 << 20, 1 << 26)
    for rule, entry in OPTIMIZERS.items():
        if entry.missing() is not None:
            continue
        for weights, rounding in OPTIMIZER_KINDS:
            for count in counts if entry.whole else counts[:2]:

                def make(
                    rule: Any = rule,
                    weights: str = weights,
                    rounding: Any = rounding,
                    count: int = count,
                ) -> Callable[[], Run]:
                    # Products that are made of a matrix in a stack have a rate of their own.
                    named = trained(count, weights, device, part="embedding")
                    optimizer = Optimizer(Optim(name=rule), named, rounding=rounding)
                    optimizer.rate = 1e-6
                    return again(optimizer.step)

                name = f"optimizer/{rule}/{weights}/{rounding}"
                at_once = entry.whole and weights == "float32"  # else a tensor at a time, of two
                yield Probe(name, count if at_once else count // 2, count, "number", make)


def passing_probes(device: torch.device) -> Iterator[Probe]:
    """Single passes over gradients and weights."""
    from stackwise.config import Optim

    counts = (1 << 16, 1 << 20, 1 << 23) if device.type == "cpu" else (1 << 20, 1 << 26)
    for count in counts:

        def norms(count: int = count) -> Callable[[], Run]:
            named = trained(count, "float32", device)
            return again(lambda: global_norms(named))

        def clip(count: int = count) -> Callable[[], Run]:
            named = trained(count, "float32", device)
            return again(lambda: clip_(named, 1.0, 0.999999))

        def add(count: int = count) -> Callable[[], Run]:
            one, other = (torch.randn(count, device=device) for _ in range(2))
            return again(lambda: one.add_(other))

        def cast(count: int = count) -> Callable[[], Run]:
            wide = torch.randn(count, device=device)
            return again(lambda: wide.to(torch.bfloat16))

        def average(dtype: str, count: int = count) -> Callable[[], Run]:
            named = trained(count, dtype, device)
            return again(Average(named, 0.99, Optimizer(Optim(), named)).update)

        def embed(count: int = count) -> Callable[[], Run]:
            table = torch.randn(256, 256, device=device).requires_grad_()
            ids = torch.randint(0, 256, (count // 256,), device=device)
            slope = torch.randn(count // 256, 256, device=device)
            return again(lambda: torch.autograd.grad(F.embedding(ids, table), table, slope))

        makes: dict[str, Any] = {
            "passing/norms": norms,
            "passing/clip": clip,
            "passing/add": add,
            "passing/cast": cast,
            "passing/average/float32": partial(average, "float32"),
            "passing/average/bfloat16": partial(average, "bfloat16"),
            "embedding": embed,
        }
        for name, make in makes.items():
            yield Probe(name, count, count, "number", make)


def format_probes(device: torch.device) -> Iterator[Probe]:
    """Dequantising as frozen layers do, and quantising as stacks that freeze are."""
    sides = (256, 2048) if device.type == "cpu" else (1024, 8192)
    for name, form in FORMATS.items():
        if missing_package(name) is not None:
            continue
        for side in sides:
            for dtype in DTYPES:

                def unpack(name: str = name, side: int = side, dtype: str = dtype) -> Any:
                    shape, kind = (side, side), getattr(torch, dtype)
                    tensors = FORMATS[name].pack(torch.randn(shape, device=device))
                    into = torch.empty(side * side, dtype=kind, device=device)
                    room = into if device.type == "cpu" else None
                    return again(lambda: FORMATS[name].unpack(tensors, shape, kind, room))

                yield Probe(f"dequantise/{name}/{dtype}", side**2, side**2, "number", unpack)

        def pack(form: Any = form) -> Callable[[], Run]:
            weight = torch.randn(sides[0] * 2, sides[0] * 2, device=device)
            return again(lambda: form.pack(weight))

        yield Probe(f"quantise/{name}", 4 * sides[0] ** 2, 4 * sides[0] ** 2, "number", pack)


def memory_probes(device: torch.device) -> Iterator[Probe]:
    """Memory bandwidth, memory that is fresh, calls, random starts, and the link to a card."""
    from stackwise.model.init import draw_, generator_for

    large = 1 << 26 if device.type == "cpu" else 1 << 30

    def copy() -> Callable[[], Run]:
        one, other = (torch.zeros(large, dtype=torch.uint8, device=device) for _ in range(2))
        return again(lambda: other.copy_(one))

    def first() -> Callable[[], Run]:
        return again(lambda: torch.frombuffer(fresh(FRESH), dtype=torch.uint8).fill_(1))

    def call() -> Callable[[], Run]:
        one, other = (torch.zeros(8, device=device) for _ in range(2))

        def do() -> None:
            for _ in range(CALLS):
                torch.add(one, other)

        return again(do)

    def start() -> Callable[[], Run]:
        weight = torch.empty(1024, 512)
        return again(lambda: draw_(weight, 0.02, generator_for(0, "s0")))

    yield Probe("memory", large, 2.0 * large, "byte", copy)
    yield Probe("fresh", FRESH, FRESH, "byte", first)
    yield Probe("calls", 1, CALLS, "call", call)
    yield Probe("start", 1 << 19, 1 << 19, "number", start)
    if device.type == "cuda":

        def link() -> Callable[[], Run]:
            host = torch.zeros(1 << 28, dtype=torch.uint8).pin_memory()
            card = torch.empty_like(host, device=device)
            return again(lambda: card.copy_(host, non_blocking=True))

        yield Probe("link", 1 << 28, 1 << 28, "byte", link)
