"""The moving average in closed form, and that looking through it leaves the weights alone."""

from __future__ import annotations

import torch
from torch import nn

from stackwise.config import Optim
from stackwise.training.average import Average
from stackwise.training.optim import Optimizer


def named(value: float):
    parameter = nn.Parameter(torch.full((3,), value))
    return {("s0", "weight"): parameter}, parameter


def average_of(group, decay: float) -> Average:
    return Average(group, decay, Optimizer(Optim(), group))


def test_the_recursion_with_its_warm_up() -> None:
    group, weight = named(0.0)
    average, expected = average_of(group, 0.9), 0.0
    for step in range(40):
        weight.data.fill_(float(step))
        average.update()
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * step
    torch.testing.assert_close(average.values["s0", "weight"], torch.full((3,), expected))


def test_it_is_seen_inside_and_gone_outside() -> None:
    group, weight = named(1.0)
    average = average_of(group, 0.5)
    weight.data.fill_(2.0)
    with average.applied():
        assert weight.tolist() == [1.0] * 3
    assert weight.tolist() == [2.0] * 3
    assert average.values["s0", "weight"].tolist() == [1.0] * 3


def test_an_error_inside_puts_the_weights_back() -> None:
    group, weight = named(1.0)
    average = average_of(group, 0.5)
    weight.data.fill_(2.0)
    try:
        with average.applied():
            raise ValueError
    except ValueError:
        pass
    assert weight.tolist() == [2.0] * 3


def test_adopting_makes_it_the_weights_of_the_parts_named() -> None:
    group, weight = named(1.0)
    group["head", "weight"] = nn.Parameter(torch.ones(2))
    average = average_of(group, 0.5)
    weight.data.fill_(2.0)
    group["head", "weight"].data.fill_(2.0)
    average.adopt(["s0"])
    assert weight.tolist() == [1.0] * 3
    assert group["head", "weight"].tolist() == [2.0] * 2


def test_state_and_load_are_inverse() -> None:
    group, weight = named(1.0)
    average = average_of(group, 0.5)
    weight.data.fill_(3.0)
    average.update()
    fresh = average_of(group, 0.5)
    fresh.load(average.state(), average.updates)
    weight.data.fill_(7.0)
    average.update()
    fresh.update()
    assert fresh.values["s0", "weight"].equal(average.values["s0", "weight"])
