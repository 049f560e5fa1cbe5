"""float32 AdamW is torch's fused one to the last bit, with decay on matrices only."""

from __future__ import annotations

import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.optim import Optimizer


def test_float32_weights_move_as_by_torch_optim_adamw() -> None:
    optim = Optim()
    shapes = {"matrix": (65, 33), "vector": (129,), "idle": (4, 4)}
    ours = {("s0", name): nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    copies = {key: nn.Parameter(p.detach().clone()) for key, p in ours.items()}
    optimizer = Optimizer(optim, ours)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in copies.values() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in copies.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )
    for step in range(5):
        rate = optimizer.rate = 1e-2 / (step + 1)
        for group in reference.param_groups:
            group["lr"] = rate
        for key in (("s0", "matrix"), ("s0", "vector")):
            ours[key].grad = torch.randn(ours[key].shape)
            copies[key].grad = ours[key].grad.clone()
        optimizer.step()
        reference.step()
    for key, parameter in ours.items():
        assert torch.equal(parameter, copies[key])
        mine, theirs = optimizer.state.get(parameter, {}), reference.state.get(copies[key], {})
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
