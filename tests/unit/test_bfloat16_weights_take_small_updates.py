"""bfloat16 weights learn from updates under their spacing: by an exact master, or in the mean."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.optim import LOWER, SLICE, Optimizer
from stackwise.training.rounding import draws_for, joined, scattered_, split_
from stackwise.training.updates import OPTIMIZERS

INSTALLED = [name for name, rule in OPTIMIZERS.items() if not rule.missing()]
CPU = torch.device("cpu")


def parameters(dtype: torch.dtype) -> dict[tuple[str, str], nn.Parameter]:
    """The same numbers in either dtype: a matrix of more than one slice."""
    generator = torch.Generator().manual_seed(0)
    values = (0.02 * torch.randn(3, SLICE // 2 + 77, generator=generator)).to(torch.bfloat16)
    return {("s0", "weight"): nn.Parameter(values.to(dtype))}


def train(optimizer: Optimizer, named: dict[tuple[str, str], nn.Parameter], steps: int) -> None:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        for parameter in named.values():
            grad = torch.randn(parameter.shape, generator=generator).to(torch.bfloat16)
            parameter.grad = grad.to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("name", INSTALLED)
def test_with_a_master_they_are_float32_training_bit_for_bit(name) -> None:
    optim = Optim(name=name, lr=1e-4)
    low, full = parameters(torch.bfloat16), parameters(torch.float32)
    ours, reference = Optimizer(optim, low), Optimizer(optim, full)
    train(ours, low, 6)
    train(reference, full, 6)
    (weight,), (exact,) = low.values(), full.values()
    assert torch.equal(ours.exact_n(weight).view_as(exact), exact)
    assert not torch.equal(weight.float(), exact)  # the weights alone are not the master
    spacing = 2.0 ** (exact.abs().log2().floor() - 7)
    assert bool(((weight.float() - exact).abs() <= spacing / 2).all())  # they are its nearest


def test_a_master_is_put_back_as_it_was() -> None:
    named = parameters(torch.bfloat16)
    (weight,) = named.values()
    before = Optimizer(Optim(lr=1e-4), named)
    train(before, named, 3)
    exact, shown = before.exact_n(weight).view(weight.shape), weight.detach().clone()
    weight.data.zero_()
    after = Optimizer(Optim(lr=1e-4), named)
    after.put(weight, exact)
    assert torch.equal(after.exact_n(weight).view_as(exact), exact)
    assert torch.equal(weight, shown)
    rounded = Optimizer(Optim(), named, rounding="stochastic")
    rounded.put(weight, exact)
    assert torch.equal(weight, exact.bfloat16())  # no master: its nearest number


def test_both_halves_hold_every_float32_number() -> None:
    edges = [0.0, -0.0, 1.0, 1 + 2**-8, -1 - 2**-8, 3.4e38, -3.4e38, 1e-45, math.inf, -math.inf]
    bits = torch.randint(-(2**31), 2**31, (1 << 16,), dtype=torch.int64).to(torch.int32)
    numbers = torch.cat([torch.tensor(edges), bits.view(torch.float32)])
    weight, lower = (
        torch.empty(len(numbers), dtype=torch.bfloat16),
        torch.empty(len(numbers), dtype=torch.int16),
    )
    split_(numbers.clone(), weight, lower)
    assert torch.equal(joined(weight, lower).view(torch.int32), numbers.view(torch.int32))
    # Away from ties it is torch's own rounding; at them it goes away from zero.
    low = numbers.view(torch.int32) & 0xFFFF
    plain = (low != 0x8000) & numbers.isfinite()
    assert torch.equal(weight[plain], numbers.to(torch.bfloat16)[plain])
    tie = torch.tensor([1 + 2**-8, -1 - 2**-8])
    split_(tie.clone(), weight[:2], lower[:2])
    assert weight[:2].tolist() == [1 + 2**-7, -1 - 2**-7]


def test_the_mean_over_many_draws_is_the_value() -> None:
    draws, spacing = 1 << 16, 2.0**-7  # of bfloat16 numbers from 1 to 2
    for part in (0.5, 0.1, 1 / 256):
        exact = torch.full((draws,), 1 + part * spacing)
        rounded = torch.empty(draws, dtype=torch.bfloat16)
        scattered_(exact.clone(), rounded, draws_for(0, 0, "mean", 1, 0, CPU))
        assert set(rounded.unique().tolist()) == {1.0, 1 + spacing}
        # Each draw is one of two numbers: the mean's standard error is at most this; 5 of them.
        error = spacing * math.sqrt(part * (1 - part) / draws)
        assert abs(float(rounded.double().mean() - exact.double().mean())) < 5 * error
        nearest = exact.to(torch.bfloat16).double().mean()  # the control: rounding to nearest
        assert abs(float(nearest - exact.double().mean())) > 5 * error


def test_what_is_a_bfloat16_number_never_moves() -> None:
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)  # every one there is
    weights = bits.view(torch.bfloat16)
    finite = weights[~weights.isnan()]
    for place in range(8):
        rounded = torch.empty_like(finite)
        scattered_(finite.float(), rounded, draws_for(0, 0, "all", 1, place, CPU))
        assert torch.equal(rounded, finite)


def test_an_update_far_under_the_spacing_moves_the_mean() -> None:
    # Lion moves every weight by the rate: 1/64 of the spacing of bfloat16 numbers at 1. Nearest
    # rounding, which is what bitsandbytes does by itself, loses all of it.
    bnb = pytest.importorskip("bitsandbytes")
    steps, rate = 64, 2.0**-7 / 64
    weight = nn.Parameter(torch.ones(64, 1024, dtype=torch.bfloat16))
    stuck = nn.Parameter(weight.detach().clone())
    optim = Optim(name="lion8bit", lr=rate, weight_decay=0.0, clip=None)
    ours = Optimizer(optim, {("s0", "weight"): weight}, rounding="stochastic")
    theirs = bnb.optim.Lion8bit([stuck], lr=rate, betas=(optim.beta1, optim.beta2))
    for _ in range(steps):
        weight.grad, stuck.grad = -torch.ones_like(weight), -torch.ones_like(stuck)
        ours.step()
        theirs.step()
    assert torch.equal(stuck.detach(), torch.ones_like(stuck))
    moved = float(weight.detach().double().mean()) - 1
    # 64 steps of 1/64 spacing; the sum of that many coins, over 65536 weights, has this error.
    error = 2.0**-7 * math.sqrt(steps * (1 / 64) * (63 / 64) / weight.numel())
    assert abs(moved - steps * rate) < 5 * error


def test_draws_follow_from_seed_stage_name_step_and_place_alone() -> None:
    def rounded(seed=0, stage=0, name="s0/weight", step=1, place=0):
        out = torch.empty(64, dtype=torch.bfloat16)
        scattered_(torch.full((64,), 1.003), out, draws_for(seed, stage, name, step, place, CPU))
        return out.tolist()

    torch.manual_seed(1)
    first = rounded()
    torch.manual_seed(2)
    assert rounded() == first
    keys = [{"seed": 1}, {"stage": 1}, {"name": "s1/weight"}, {"step": 2}, {"place": SLICE}]
    others = [rounded(**key) for key in keys]
    assert all(other != first for other in others)


@pytest.mark.parametrize("rounding", ["master", "stochastic"])
def test_a_step_that_is_taken_again_gives_the_same_bits(rounding) -> None:
    named = parameters(torch.bfloat16)
    (weight,) = named.values()
    whole = Optimizer(Optim(), named, rounding=rounding, seed=3)
    train(whole, named, 2)
    before = weight.detach().clone()
    kept = {key: value.clone() for key, value in whole.state[weight].items()}
    train(whole, named, 1)
    after = weight.detach().clone()
    weight.data.copy_(before)
    again = Optimizer(Optim(), named, rounding=rounding, seed=3)
    again.state[weight] = kept
    train(again, named, 1)
    assert torch.equal(weight, after)
    assert (LOWER in kept) == (rounding == "master")
