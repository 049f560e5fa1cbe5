"""What has no gradient does not move, nor decays, by any optimizer; momentum or not.

The trap is in the Muon that its author published: a missing gradient is taken for zero, and since
what is left of the momentum is made orthogonal, a frozen matrix goes on at the full rate.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.config import Optim
from stackwise.stage import Stage
from stackwise.training.muon import orthogonal
from stackwise.training.optim import Optimizer
from stackwise.training.trained import freeze_all_but
from stackwise.training.updates import OPTIMIZERS

PATH = ("s0", "s1", "s2")
SECOND = Stage(path=PATH, active=("s1",), embedding=False, head=False)


def rack_of(dtype: torch.dtype) -> sw.Rack:
    shape = sw.RackShape(stacks=3, blocks_per_stack=1, d_model=16, heads=2, bias=True)
    return sw.Rack(shape, sw.Experiment().attention, 11, dtype=dtype)


def optimizer_over(rack: sw.Rack, stage: Stage, name: str) -> Optimizer:
    optim = Optim(name=name, weight_decay=1.0)
    optimizer = Optimizer(optim, freeze_all_but(rack.parts(), stage), rounding="stochastic")
    optimizer.rate = 0.02
    return optimizer


def step(rack: sw.Rack, optimizer: Optimizer) -> None:
    rack(torch.arange(12).view(2, 6) % 11).float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_a_stage_after_one_in_which_all_of_it_trained(name, dtype) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    rack = rack_of(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        first = optimizer_over(rack, Stage(path=PATH, active=PATH), name)
        for _ in range(3):
            step(rack, first)
        before = {key: value.clone() for key, value in rack.state_dict().items()}
        assert len(first.state) == len(first.names), "all of it has moved"
        second = optimizer_over(rack, SECOND, name)
        for _ in range(5):
            step(rack, second)
    moved = {key for key, value in rack.state_dict().items() if not value.equal(before[key])}
    assert moved == {key for key in before if key.startswith("stacks.s1.")}
    # What trained before, momentum and all, is left alone by its old optimizer, too.
    held = {key: value.clone() for key, value in rack.state_dict().items()}
    for _ in range(3):
        first.step()
    assert all(value.equal(held[key]) for key, value in rack.state_dict().items())


def theirs(weight: torch.Tensor, grad: torch.Tensor | None, momentum: torch.Tensor) -> None:
    """One step of the Muon that falls into the trap, without decay."""
    grad = torch.zeros_like(weight) if grad is None else grad
    momentum.lerp_(grad, 0.05)
    weight.sub_(orthogonal(grad.lerp(momentum, 0.95).bfloat16()).float(), alpha=0.02)


def test_the_control_moves_a_frozen_matrix_as_far_as_a_trained_one() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(49, 49, generator=generator)
    grad = torch.randn(49, 49, generator=generator)
    weight, momentum = start.clone(), torch.zeros_like(start)
    theirs(weight, grad, momentum)
    before = weight.clone()
    for _ in range(200):
        theirs(weight, None, momentum)
    # Each step is 0.02 of a matrix of 49 singular values near 1, always the same one.
    assert float((weight - before).norm()) == pytest.approx(200 * 0.02 * 7, rel=0.2)
    ours = nn.Parameter(start.clone())
    optimizer = Optimizer(Optim(name="muon"), {("s0", "w"): ours})
    ours.grad = grad
    optimizer.step()
    optimizer.zero_grad()
    held = ours.detach().clone()
    for _ in range(200):
        optimizer.step()
    assert torch.equal(ours, held)
