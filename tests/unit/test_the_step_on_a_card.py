"""Optimizers and steps in backward on a CUDA card; skipped, saying so, where there is none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.chunked import chunked_loss
from stackwise.training.in_backward import InBackward
from stackwise.training.optim import SLICE_ON_A_CARD, Optimizer
from stackwise.training.rounding import draws_for, joined, scattered_, split_
from stackwise.training.updates import OPTIMIZERS

pytestmark = pytest.mark.card
CARD = torch.device("cuda")


def layers(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)).to(CARD)
    for parameter in made.parameters():
        if parameter.ndim >= 2:
            parameter.data = parameter.data.to(dtype)
    return made


def trained(name: str, dtype: torch.dtype, rounding, in_backward: bool) -> list[torch.Tensor]:
    model = layers(dtype)
    named = {("s0", key): p for key, p in model.named_parameters()}
    optimizer = Optimizer(Optim(name=name), named, rounding=rounding)
    stepping = InBackward(named, optimizer, model.modules()) if in_backward else None
    x = torch.ones(8, 64, device=CARD)
    for _ in range(3):
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(x).float().square().mean()
        if stepping is not None:
            stepping.begin(optimizer.rate)
        loss.backward()
        if stepping is None:
            optimizer.step()
            optimizer.zero_grad()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("rounding", ["master", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_in_backward_equal_steps_after_it(name, dtype, rounding) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    whole, stepped = (trained(name, dtype, rounding, way) for way in (False, True))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(stepped, whole, strict=True))


@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw8bit", "lion8bit"])
def test_slices_are_bitsandbytes_own_steps_of_the_whole(name) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    weight = nn.Parameter(torch.randn(3, SLICE_ON_A_CARD // 2 + 100, device=CARD))
    copy = nn.Parameter(weight.detach().clone())
    optim = Optim(name=name, weight_decay=0.0)
    kinds = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit", "lion8bit": "Lion8bit"}
    theirs = getattr(bnb.optim, kinds[name])
    reference = theirs([copy], lr=optim.lr, betas=(optim.beta1, optim.beta2), weight_decay=0.0)
    ours = Optimizer(optim, {("s0", "w"): weight})
    for step in range(3):
        weight.grad = torch.randn_like(weight) * 10.0**-step
        copy.grad = weight.grad.clone()
        ours.step()
        reference.step()
    assert torch.equal(weight, copy)
    states = [ours.state[weight][key] for key in ("state1", "absmax1")]
    assert [s.is_cuda for s in states] == [name != "paged_adamw8bit", True]


def test_halves_and_draws_are_as_on_the_cpu() -> None:
    exact = torch.randn(1 << 16, device=CARD)
    weight = torch.empty_like(exact, dtype=torch.bfloat16)
    lower = torch.empty_like(exact, dtype=torch.int16)
    split_(exact.clone(), weight, lower)
    assert torch.equal(joined(weight, lower), exact)
    value = torch.full((1 << 16,), 1 + 2.0**-7 / 4, device=CARD)
    scattered_(value.clone(), weight, draws_for(0, 0, "w", 1, 0, CARD))
    # A quarter of the coins go up: 5 standard errors of 65536 of them.
    up = (weight > 1).double().mean().item()
    assert abs(up - 0.25) < 5 * (0.25 * 0.75 / (1 << 16)) ** 0.5


def test_the_chunked_loss_is_the_plain_one() -> None:
    values = [torch.randn(shape, device=CARD) for shape in ((300, 64), (90_000, 64))]
    target_N, scale_N = torch.randint(90_000, (300,), device=CARD), torch.rand(300, device=CARD)
    found = []
    for chunks in (False, True):
        x_ND, weight_VD = (value.clone().requires_grad_() for value in values)
        if chunks:
            loss = chunked_loss(x_ND, weight_VD, None, target_N, scale_N)
        else:
            nats_N = nn.functional.cross_entropy(x_ND @ weight_VD.t(), target_N, reduction="none")
            loss = (scale_N * nats_N).sum()
        loss.backward()
        found.append((loss.detach(), x_ND.grad, weight_VD.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))
