"""`state_bytes` and the sum of the optimizer's tensors are the same number."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.config import Optim, Precision
from stackwise.training.in_backward import InBackward
from stackwise.training.optim import Optimizer
from stackwise.training.optim_costs import gradient_bytes, state_bytes
from stackwise.training.updates import OPTIMIZERS

PRECISIONS = [
    Precision(),
    Precision(compute="bfloat16", weights="bfloat16"),
    Precision(compute="bfloat16", weights="bfloat16", rounding="stochastic"),
]
CASES = list(itertools.product(OPTIMIZERS, PRECISIONS))


@pytest.mark.parametrize(("name", "precision"), CASES, ids=str)
def test_of_matrices_and_vectors_of_any_size(name, precision) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    optim, module, low = Optim(name=name), nn.ParameterDict(), getattr(torch, precision.weights)
    for number, shape in enumerate([(64, 65), (8, 8), (4096,), (4095,), (5000,), (3, 5, 300)]):
        dtype = low if len(shape) >= 2 else torch.float32
        module[f"p{number}"] = nn.Parameter(torch.ones(shape, dtype=dtype))
    parts = itertools.cycle(["s0", "head"])  # in a stack and at an end
    named = {(next(parts), key): parameter for key, parameter in module.named_parameters()}
    optimizer = Optimizer(optim, named, rounding=precision.rounding)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for (part, _), parameter in named.items():
        held = sum(value.nbytes for value in optimizer.state[parameter].values())
        shape, hidden = tuple(parameter.shape), part == "s0"
        assert state_bytes(optim, precision, shape, hidden=hidden) == held


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("precision", [*PRECISIONS[:2], Precision(compute="bfloat16")], ids=str)
def test_gradients_are_all_or_the_buffer_and_the_largest_beside_it(precision, tied) -> None:
    shape = sw.RackShape(stacks=1, blocks_per_stack=2, d_model=16, heads=2, bias=True, tied=tied)
    dtype = getattr(torch, precision.weights)
    rack = sw.Rack(shape, sw.Experiment().attention, 50, dtype=dtype)
    named = {(part, k): p for part, m in rack.parts().items() for k, p in m.named_parameters()}
    layers = [m.weight for m in rack.modules() if isinstance(m, nn.Linear)]
    linears = [weight.numel() for weight in layers]
    others = [(p.numel(), p.ndim) for p in named.values() if all(p is not w for w in layers)]
    optim = Optim(grads="in_backward", clip=None)
    stepping = InBackward(named, Optimizer(optim, named), rack.modules())
    stepping.begin(1e-3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision.compute == "bfloat16"):
        loss = rack(torch.randint(50, (2, 8))).float().square().mean()
    loss.backward()
    assert gradient_bytes(optim, precision, linears, others) == stepping.gradient_bytes
    held = sum(parameter.nbytes for parameter in named.values())  # a gradient is as its weight
    assert gradient_bytes(Optim(), precision, linears, others) == held
    assert stepping.gradient_bytes < held
