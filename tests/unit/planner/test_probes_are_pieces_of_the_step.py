"""The block that is probed does what a block does, but for products and attention."""

from __future__ import annotations

import torch

from stackwise.planner.bare import Given, bare_block
from stackwise.planner.probes import probes_for

CPU = torch.device("cpu")


def operators(block, x_BTD) -> dict[str, int]:
    """How often each operator is called, forward and backward."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        block(x_BTD, causal=True).sum().backward()
    return {each.key: each.count for each in profile.key_averages()}


def test_products_and_attention_are_left_out_and_nothing_else() -> None:
    from stackwise.choice import parse
    from stackwise.model.attention import ATTENTION
    from stackwise.model.block import Block
    from stackwise.model.shape import RackShape

    shape = RackShape(stacks=1, blocks_per_stack=1, d_model=512, heads=8)
    whole = Block(shape, parse(ATTENTION, "mha", "attention", "kind"), 0)
    x_BTD = torch.randn(1, 4, 512)
    there = operators(whole, x_BTD.requires_grad_())
    bare = operators(bare_block(4, "float32", CPU), x_BTD.detach().requires_grad_())
    assert not {key for key in bare if key == "aten::mm" or "scaled_dot" in key}
    assert there["aten::mm"] == 15
    for key in ("_Lean", "_LeanBackward", "_Scored", "_ScoredBackward", "aten::silu"):
        assert bare[key] == there[key], key
    assert bare["aten::silu_backward"] == there["aten::silu_backward"] == 1


def test_a_stand_in_gives_what_is_there_both_ways() -> None:
    result, grad = torch.randn(1, 3, 5), torch.randn(1, 3, 2)
    x = torch.randn(1, 3, 2, requires_grad=True)
    y = Given(result, grad)(x)
    y.sum().backward()
    assert torch.equal(y, result) and torch.equal(x.grad, grad)


def test_every_probe_runs(monkeypatch) -> None:
    """On a machine of small sizes, each does what it says without an error."""
    for probe in probes_for(CPU):
        if probe.size <= 1 << 20 and probe.work < 1e8:
            prepare = probe.make()
            prepare()()
            prepare()()


def test_names_and_sizes_are_one_point_each() -> None:
    points = [(probe.name, probe.size) for probe in probes_for(CPU)]
    assert len(points) == len(set(points))
    assert all(probe.work > 0 for probe in probes_for(CPU))


def test_a_card_has_a_link_and_no_buffer(monkeypatch) -> None:
    names = {probe.name for probe in probes_for(torch.device("cuda"))}
    assert names - {probe.name for probe in probes_for(CPU)} == {"link"}


def test_rules_and_formats_that_need_a_package_are_left_out_without_it(monkeypatch) -> None:
    monkeypatch.setattr("stackwise.model.formats.lacking", lambda: "needs more")
    monkeypatch.setattr("stackwise.training.updates.lacking", lambda: "needs more")
    names = {probe.name for probe in probes_for(CPU)}
    assert not {name for name in names if "8bit" in name or "nf4" in name or "int8" in name}
    assert "dequantise/fp8/float32" in names
