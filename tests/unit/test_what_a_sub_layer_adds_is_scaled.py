"""Residual gain and CompleteP depth scaling: closed forms, and the same change at every depth."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.config import Optim
from stackwise.model.shape import residual_factor
from stackwise.training.optim import Optimizer

SHAPE = {"blocks_per_stack": 1, "d_model": 32, "heads": 2, "d_ff": 64}


def rack_of(stacks: int, **options) -> sw.Rack:
    return sw.Rack(sw.RackShape(stacks=stacks, **SHAPE, **options), "mha", 17, seed=1)


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 1.0),
        ({"residual_gain": 0.5}, 0.5),
        ({"depth_base": 2}, 0.25),
        ({"depth_base": 8}, 1.0),
        ({"depth_base": 2, "residual_gain": 0.5}, 0.125),
        ({"depth_base": 16, "norm_place": "post"}, 2.0),
    ],
    ids=str,
)
def test_the_factor_is_gain_times_base_over_finished_depth(options, factor) -> None:
    """In a rack of eight blocks, of which one stack is there: growth rescales nothing."""
    shape = sw.RackShape(stacks=8, **SHAPE, **options)
    rack = sw.Rack(shape, "mha", 17, stacks=("s3",))
    (block,) = rack.blocks(("s3",))
    assert residual_factor(shape) == factor
    x_BTD = torch.randn(2, 5, 32)
    with torch.no_grad():
        found_BTD = block(x_BTD, causal=False)
        if shape.norm_place == "post":
            x_BTD = block.attention_norm(x_BTD + factor * block.attention(x_BTD, causal=False))
            wanted_BTD = block.ffn_norm(x_BTD + factor * block.ffn(x_BTD))
        else:
            x_BTD = x_BTD + factor * block.attention(block.attention_norm(x_BTD), causal=False)
            wanted_BTD = x_BTD + factor * block.ffn(block.ffn_norm(x_BTD))
    assert torch.allclose(found_BTD, wanted_BTD, rtol=1e-6, atol=1e-6)


def test_at_the_base_depth_a_rack_is_what_it_is_without() -> None:
    plain, scaled = rack_of(4), rack_of(4, depth_base=4)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, scaled.state_dict()[name])
    ids_BT = torch.arange(10).view(2, 5)
    assert torch.equal(plain(ids_BT), scaled(ids_BT))


def test_random_starts_do_not_get_narrower_with_depth() -> None:
    def std(rack: sw.Rack) -> float:
        return float(next(rack.blocks(("s0",))).ffn.down.weight.detach().std())

    assert std(rack_of(2, depth_base=2)) == std(rack_of(16, depth_base=2))
    assert std(rack_of(2)) == pytest.approx(8**0.5 * std(rack_of(16)), rel=1e-6)


def test_epsilon_is_scaled_in_the_blocks_alone() -> None:
    """As one step of AdamW from nothing: weights move by lr g / (|g| + eps)."""
    shape, optim = sw.RackShape(stacks=8, **SHAPE, depth_base=2), Optim(lr=1.0, eps=1e-2)
    named = {(part, "w"): torch.nn.Parameter(torch.zeros(3)) for part in ("s0", "head")}
    optimizer = Optimizer(optim, named, shape=shape)
    for parameter in named.values():
        parameter.grad = torch.full((3,), 1e-2)
    optimizer.step()
    assert torch.allclose(named["head", "w"], torch.tensor(-0.5), rtol=1e-5)
    assert torch.allclose(named["s0", "w"], torch.tensor(-0.8), rtol=1e-5)  # eps 2.5e-3


def change(depth: int, **options) -> float:
    """How far one step of Adam moves the last hidden states, over their size."""
    rack = rack_of(depth, init_std=0.1, **options)
    named = {
        (part, name): p
        for part, module in rack.parts().items()
        if part.startswith("s")
        for name, p in module.named_parameters()
    }
    optimizer = Optimizer(Optim(lr=3e-3, weight_decay=0), named, shape=rack.shape)
    ids_BT = torch.randint(17, (4, 12), generator=torch.Generator().manual_seed(0))
    before = rack.hidden(ids_BT)
    torch.nn.functional.cross_entropy(
        rack.logits(before).flatten(0, 1), ids_BT.flatten()
    ).backward()
    optimizer.rate = 3e-3
    optimizer.step()
    after = rack.hidden(ids_BT)
    return float((after - before).norm() / before.norm())


def test_a_step_changes_features_alike_at_every_depth() -> None:
    """The coordinate check of section 4 of the paper, at 2, 4, 8 and 16 blocks of two sub-layers.

    With L_base/L the L blocks' changes, of 1/L each, add up to one size: the largest is 1.4 times
    the smallest. Without, sixteen change 5.1 times what two do.
    """
    scaled = [change(depth, depth_base=2) for depth in (2, 4, 8, 16)]
    plain = [change(depth) for depth in (2, 4, 8, 16)]
    assert max(scaled) / min(scaled) < 1.6
    assert plain[-1] / plain[0] > 2 * max(scaled) / min(scaled)
