"""Muon moves matrices of stacks as torch.optim.Muon to the last bit, and all else as AdamW."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.muon import orthogonal
from stackwise.training.optim import Optimizer

SHAPES = [(48, 48), (96, 32), (32, 96), (1, 7)]


def test_matrices_of_stacks_move_as_by_torch_optim_muon() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = {("s0", f"{s}"): nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES}
    copies = {key: nn.Parameter(p.detach().clone()) for key, p in ours.items()}
    optimizer = Optimizer(Optim(name="muon", weight_decay=0.3), ours)
    reference = torch.optim.Muon(
        copies.values(), weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        rate = optimizer.rate = 1e-2 / (step + 1)
        reference.param_groups[0]["lr"] = rate
        for key, parameter in ours.items():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            copies[key].grad = parameter.grad.clone()
        optimizer.step()
        reference.step()
    for key, parameter in ours.items():
        assert torch.equal(parameter, copies[key]), key
        theirs = reference.state[copies[key]]["momentum_buffer"]
        assert torch.equal(optimizer.state[parameter]["momentum"], theirs)


def test_all_else_moves_as_by_adamw() -> None:
    places = [("embedding", "table", (9, 8)), ("head", "weight", (9, 8)), ("s0", "norm", (8,))]

    def moved(name: str) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        named = {
            (part, key): nn.Parameter(torch.randn(shape, generator=generator))
            for part, key, shape in places
        }
        optimizer = Optimizer(Optim(name=name), named)
        for _ in range(3):
            for parameter in named.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        return [parameter.detach() for parameter in named.values()]

    assert all(map(torch.equal, moved("muon"), moved("adamw")))


@pytest.mark.parametrize("shape", [(64, 64), (200, 40), (40, 200)])
def test_a_step_is_nearly_orthogonal_and_as_large_as_said(shape) -> None:
    x_RC = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    u_RR, _, v_RC = torch.linalg.svd(x_RC, full_matrices=False)
    turned_RC = orthogonal(x_RC.bfloat16()).float()
    # Five iterations bring singular values to about 0.7 .. 1.2, the smallest of a square matrix
    # less far (Jordan's post); the vectors stay. bfloat16 rounds each product by 2^-9.
    values = torch.diag(u_RR.T @ turned_RC @ v_RC.T)
    assert values.median() == pytest.approx(1, abs=0.3)
    assert values.max() < 1.3
    rest_RC = turned_RC - u_RR @ torch.diag(values) @ v_RC
    assert rest_RC.norm() < 0.05 * turned_RC.norm()
    # So its root mean square is near 1 / sqrt(max(shape)), and a step's 0.2, as AdamW's.
    size = turned_RC.square().mean().sqrt() * max(shape) ** 0.5
    assert 0.7 < float(size) < 1.2
