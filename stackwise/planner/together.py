"""Calibration's whole block: what its pieces take more together than each alone.

Products, attention and the rest are probed one kind at a time, over and over on the same few
tensors. In a step each finds caches full of other tensors, and pages that the system has yet to
clear. So a real block is probed, too; its seconds over the sum of its pieces is what `Pass`
multiplies every block with.

Shapes: B samples, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stackwise.memory.flops import block_flops_per_token
from stackwise.model.block import Block
from stackwise.planner.bare import HEAD
from stackwise.planner.curve import Curve
from stackwise.planner.hardware import Hardware
from stackwise.planner.passes import Pass
from stackwise.planner.probe import Probe, Run, again
from stackwise.training.step import autocast

if TYPE_CHECKING:
    from stackwise.config import Experiment

SHAPES = {  # width, tokens of a sample, samples
    "cpu": ((256, 192, 5), (1024, 96, 4)),
    "cuda": ((1024, 512, 16), (4096, 1024, 4)),
}


def experiment(width: int, length: int, batch: int, dtype: str) -> Experiment:
    """One whose step goes through a single block."""
    from stackwise.config import Experiment

    return Experiment(
        rack={"stacks": 1, "blocks_per_stack": 1, "d_model": width, "heads": width // HEAD},
        objective="clm",
        curriculum="end_to_end",
        data={"seq_len": length},
        optim={"batch": batch},
        precision={"compute": dtype},
        budget={"tokens": length * batch},
    )


def flops_of(exp: Experiment) -> dict[str, float]:
    """FLOPs of the block in such an experiment's step."""
    tokens = exp.optim.batch * exp.data.seq_len
    forward = tokens * block_flops_per_token(exp, 0, "trunk")
    return {
        "forward": forward,
        "backward": tokens * block_flops_per_token(exp, 0, "active") - forward,
    }


def block_probes(device: torch.device, dtype: str) -> Iterator[Probe]:
    """A block as it trains, forward and backward, by its width."""
    for shape in SHAPES[device.type]:
        exp = experiment(*shape, dtype)
        flops = flops_of(exp)
        for way, make in (("forward", forward_of), ("backward", backward_of)):
            name = f"block/{dtype}/{way}"
            yield Probe(name, exp.rack.d_model, flops[way], "FLOP", partial(make, exp, device))


def forward_of(exp: Experiment, device: torch.device) -> Callable[[], Run]:
    """What makes a call of the block without gradient."""
    run, x_BTD = block_of(exp, device)

    def do() -> None:
        with torch.no_grad():
            run(x_BTD)

    return again(do)


def backward_of(exp: Experiment, device: torch.device) -> Callable[[], Run]:
    """What makes a call of its backward, forward done."""
    run, x_BTD = block_of(exp, device)
    slope_BTD = torch.randn_like(x_BTD)

    def prepare() -> Run:
        y_BTD = run(x_BTD.detach().requires_grad_())
        return partial(y_BTD.backward, slope_BTD)

    return prepare


def block_of(exp: Experiment, device: torch.device) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The block, with gradients that are new at each call, and what goes into it."""
    block = Block(exp.rack, exp.attention, 0).to(device)

    def run(x_BTD: Tensor) -> Tensor:
        block.zero_grad()
        with autocast(device, getattr(torch, exp.precision.compute)):
            y_BTD: Tensor = block(x_BTD, causal=True)
        return y_BTD

    shape = (exp.optim.batch, exp.data.seq_len, exp.rack.d_model)
    return run, torch.randn(shape, device=device)


def with_blocks(hardware: Hardware, blocks: Mapping[str, Curve]) -> Hardware:
    """The same machine, that also knows what pieces take together.

    Args:
        hardware: With the rates of the pieces alone.
        blocks: `dtype/forward` and `dtype/backward` to FLOP/s of a block, by its width.
    """
    from stackwise.config import Placement

    together: dict[str, Curve] = {}
    for name, curve in blocks.items():
        dtype, way = name.split("/")
        found, rates = [], dict(curve)
        for shape in SHAPES[hardware.kind]:
            exp = experiment(*shape, dtype)
            alone = Pass(exp, Placement(), hardware, exp.optim.batch * exp.data.seq_len)
            forward, backward = alone.block(0, "active", False)
            pieces = {"forward": forward, "backward": backward}[way]
            width = exp.rack.d_model
            found.append((float(width), flops_of(exp)[way] / rates[width] / pieces))
        together[name] = tuple(found)
    return replace(hardware, together=together)
