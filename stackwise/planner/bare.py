"""Calibration's block with its products and attention left out: all else that a block does.

Shapes: R rows, D width; B samples, T tokens, H heads, E numbers per head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.attention.heads import scored
from stackwise.model.attention.mha import SoftmaxAttention
from stackwise.model.block import Block, block_saved
from stackwise.model.direction import Direction
from stackwise.model.shape import RackShape
from stackwise.planner.probe import Probe, Run, again
from stackwise.training.step import autocast

WIDTH, HEAD = 512, 64  # of the block that is probed


class Given(nn.Module):
    """Stands where a linear layer does: gives a result and a gradient that are there already."""

    def __init__(self, result: Tensor, grad: Tensor) -> None:
        super().__init__()
        self.result, self.grad = result, grad

    def forward(self, x: Tensor) -> Tensor:
        """What is there, whatever `x` is."""
        given: Tensor = _Given.apply(x, self.result, self.grad)
        return given


class _Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, result: Tensor, grad: Tensor) -> Tensor:
        ctx.given = grad
        return result.view_as(result)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.given, None, None


class _Unattended(SoftmaxAttention):
    """Softmax attention whose scores and sums are left out: each query gets its own numbers."""

    def forward(self, x_BTD: Tensor, *, causal: Direction) -> Tensor:
        q_BHTE, k_BHTE, v_BHTE = scored(
            self.qkv(x_BTD), self.shape, self.q_norm, self.k_norm, self.rotary
        )
        y_BHTE = _Unsummed.apply(q_BHTE, k_BHTE, v_BHTE)
        return self.out(y_BHTE.transpose(1, 2).flatten(2))


class _Unsummed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.view_as(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return grad, grad, grad


def bare_block(rows: int, dtype: str, device: torch.device) -> Block:
    """A block of `WIDTH` over `rows` tokens whose linear layers and attention cost nothing."""
    shape = RackShape(stacks=1, blocks_per_stack=1, d_model=WIDTH, heads=WIDTH // HEAD)
    block = Block(shape, parse(ATTENTION, "mha", "attention", "kind"), 0).to(device)
    block.attention.__class__ = _Unattended
    kind = getattr(torch, dtype)
    holders = [(block.attention, ("qkv", "out")), (block.ffn, ("gate", "up", "down"))]
    for holder, names in holders:
        for name in names:
            linear = holder.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            sizes = (linear.out_features, linear.in_features)
            result, grad = (torch.randn(1, rows, n, device=device).to(kind) for n in sizes)
            setattr(holder, name, Given(result, grad))
    return block


def around_probes(device: torch.device, dtype: str) -> Iterator[Probe]:
    """Norms, rotation, gates, residuals, casts and their backward, in numbers that are kept."""
    shape = RackShape(stacks=1, blocks_per_stack=1, d_model=WIDTH, heads=WIDTH // HEAD)
    mha = parse(ATTENTION, "mha", "attention", "kind")
    rows = (8, 64, 512, 2048) if device.type == "cpu" else (64, 1024, 8192)
    for count in rows:

        def run(block: Block, x_BTD: Tensor) -> Tensor:
            with autocast(device, getattr(torch, dtype)):
                return block(x_BTD, causal=True)

        def forward(count: int = count, run: Any = run) -> Callable[[], Run]:
            block = bare_block(count, dtype, device)
            x_BTD = torch.randn(1, count, WIDTH, device=device)

            def do() -> None:
                with torch.no_grad():
                    run(block, x_BTD)

            return again(do)

        def backward(count: int = count, run: Any = run) -> Callable[[], Run]:
            block = bare_block(count, dtype, device)
            x_BTD = torch.randn(1, count, WIDTH, device=device).requires_grad_()
            slope = torch.randn(1, count, WIDTH, device=device)

            def prepare() -> Run:
                block.zero_grad()
                y_BTD = run(block, x_BTD)
                return partial(y_BTD.backward, slope)

            return prepare

        numbers = float(count * sum(block_saved(shape, mha, count, True, True)))
        yield Probe(f"around/{dtype}/forward", numbers, numbers, "number", forward)
        yield Probe(f"around/{dtype}/backward", numbers, numbers, "number", backward)
