"""`state_bytes` and the sum of the optimizer's tensors are the same number."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from stackwise.config import Optim, Precision
from stackwise.training.optim import Optimizer, gradient_bytes, state_bytes
from stackwise.training.trained import to_weights_dtype
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
        pytest.skip(f"{OPTIMIZERS[name].needs} is not installed")
    optim, module = Optim(name=name), nn.ParameterDict()
    for number, shape in enumerate([(64, 65), (8, 8), (4096,), (4095,), (5000,), (3, 5, 300)]):
        module[f"p{number}"] = nn.Parameter(torch.ones(shape))
    to_weights_dtype(module, getattr(torch, precision.weights))
    named = {("s0", key): parameter for key, parameter in module.named_parameters()}
    optimizer = Optimizer(optim, named, rounding=precision.rounding)
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter in named.values():
        held = sum(value.nbytes for value in optimizer.state[parameter].values())
        assert state_bytes(optim, precision, parameter.numel(), parameter.ndim) == held
    grads = [p.grad.nbytes for p in named.values()]
    tensors = [(p.numel(), p.ndim) for p in named.values()]
    assert gradient_bytes(optim, precision, tensors) == sum(grads)
    in_backward = Optim(name=name, grads="in_backward", clip=None)
    assert gradient_bytes(in_backward, precision, tensors) == max(grads)
