"""8-bit updates in slices are bitsandbytes' own on whole tensors, bit for bit."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.optim import SLICE, Optimizer
from stackwise.training.updates import LEAST_8BIT, OPTIMIZERS

bnb = pytest.importorskip("bitsandbytes")

SHAPES = {
    "several slices and a rest": (2, SLICE + 100),
    "one slice": (512, 512),
    "no multiple of 256": (100, 41),
    "a vector in bytes": (LEAST_8BIT,),
    "a vector in float32": (LEAST_8BIT - 1,),
    "a matrix in float32": (8, 16),
}


def named(dtype: torch.dtype = torch.float32) -> dict[tuple[str, str], nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        ("s0", name): nn.Parameter(0.02 * torch.randn(shape, generator=generator).to(dtype))
        for name, shape in SHAPES.items()
    }


def theirs(optim: Optim, ours: dict[tuple[str, str], nn.Parameter]) -> torch.optim.Optimizer:
    """bitsandbytes' own, over copies."""
    copies = [nn.Parameter(p.detach().clone()) for p in ours.values()]
    groups = [
        {"params": [p for p in copies if p.ndim >= 2], "weight_decay": optim.weight_decay},
        {"params": [p for p in copies if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (optim.beta1, optim.beta2)
    if optim.name == "lion8bit":
        return bnb.optim.Lion8bit(groups, lr=optim.lr, betas=betas)
    return bnb.optim.AdamW8bit(groups, lr=optim.lr, betas=betas, eps=optim.eps)


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit", "lion8bit"])
def test_weights_and_state_are_theirs_after_several_steps(name) -> None:
    optim, ours = Optim(name=name, clip=None), named()
    optimizer, reference = Optimizer(optim, ours), theirs(optim, ours)
    copies = [p for group in reference.param_groups for p in group["params"]]
    mine = sorted(ours.values(), key=lambda p: p.ndim < 2)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        for parameter, copy in zip(mine, copies, strict=True):
            # A wide range, and blocks that are zero, so that every code of the state is met.
            grad = torch.randn(copy.shape, generator=generator) * 10.0 ** (step - 4)
            grad.view(-1)[256:512] = 0.0
            parameter.grad, copy.grad = grad, grad.clone()
        optimizer.rate = optim.lr * (step + 1) / 4
        for group in reference.param_groups:
            group["lr"] = optimizer.rate
        optimizer.step()
        reference.step()
    for parameter, copy in zip(mine, copies, strict=True):
        assert torch.equal(parameter, copy)
        state, kept = reference.state[copy], optimizer.state[parameter]
        assert set(kept) == set(state) - {"qmap1", "qmap2"}
        for key in set(kept) - {"step"}:
            assert torch.equal(kept[key], state[key]), key
        assert int(kept["step"]) == state["step"] == 4


def test_the_state_is_in_bytes_from_the_same_size_on() -> None:
    ours = named()
    optimizer = Optimizer(Optim(name="adamw8bit"), ours)
    for parameter in ours.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    kinds = {n: optimizer.state[ours["s0", n]]["state1"].dtype == torch.uint8 for n in SHAPES}
    assert kinds == {name: "float32" not in name for name in SHAPES}


def test_every_optimizer_can_be_asked_for() -> None:
    assert get_args(Optim.model_fields["name"].annotation) == tuple(OPTIMIZERS)
