"""Adafactor moves weights as transformers' does, at an absolute rate, with decay on matrices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training import optim as module
from stackwise.training.optim import Optimizer

SHAPES = {"wide": (17, 96), "tall": (96, 17), "row": (1, 40), "vector": (129,)}


@pytest.mark.parametrize("size", [module.SLICE, 200], ids=["whole", "by rows"])
@pytest.mark.parametrize("grads", [1.0, 1e-6, 30.0])
def test_float32_weights_move_as_by_transformers(monkeypatch, grads, size) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.setattr(module, "SLICE", size)
    generator = torch.Generator().manual_seed(0)
    ours = {
        ("s0", key): nn.Parameter(torch.randn(shape, generator=generator))
        for key, shape in SHAPES.items()
    }
    copies = {key: nn.Parameter(p.detach().clone()) for key, p in ours.items()}
    optimizer = Optimizer(Optim(name="adafactor", weight_decay=0.3), ours)
    reference = transformers.Adafactor(
        [
            {"params": [p for p in copies.values() if p.ndim == 2], "weight_decay": 0.3},
            {"params": [p for p in copies.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-3,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    for step in range(6):
        rate = optimizer.rate = 1e-2 / (step + 1)
        for group in reference.param_groups:
            group["lr"] = rate
        for key, parameter in ours.items():
            # Rows and columns of different sizes, of which one is always zero.
            spread = torch.linspace(0, 2, parameter.shape[-1])
            parameter.grad = grads * spread * torch.randn(parameter.shape, generator=generator)
            copies[key].grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for key, parameter in ours.items():
        # Each step is the rate times numbers of order 1..10, worked out in another order: some
        # 20 roundings of 2^-24 each, over 6 steps, beside weights of order 1 that are rounded, too.
        assert torch.allclose(parameter, copies[key], rtol=1e-6, atol=1e-6), key


def test_a_step_is_scaled_down_to_a_mean_square_of_one() -> None:
    weight = nn.Parameter(torch.zeros(8, 8))
    optimizer = Optimizer(Optim(name="adafactor"), {("s0", "w"): weight})
    optimizer.rate = 1.0
    weight.grad = torch.full((8, 8), 1e-3)
    optimizer.step()
    before = weight.detach().clone()
    assert torch.allclose(before, torch.full((8, 8), -1.0))  # g / rms(g)
    weight.grad = torch.full((8, 8), 1.0)  # a thousand times as large: at most the rate again
    optimizer.step()
    moved = weight.detach() - before * (1 - optimizer.optim.weight_decay)
    assert float(moved.square().mean().sqrt()) == pytest.approx(1.0, rel=1e-5)
