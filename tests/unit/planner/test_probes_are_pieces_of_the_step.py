"""The block that is probed does what a block does, but for products and attention."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.planner.bare import Given, bare_block
from stackwise.planner.passes import Pass
from stackwise.planner.probes import probes_for
from stackwise.planner.together import SHAPES, experiment, flops_of, with_blocks

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


def test_a_card_has_a_link_besides() -> None:
    names = {probe.name for probe in probes_for(torch.device("cuda"))}
    assert names - {probe.name for probe in probes_for(CPU)} == {"link"}


def test_rules_and_formats_that_need_a_package_are_left_out_without_it(monkeypatch) -> None:
    monkeypatch.setattr("stackwise.model.formats.lacking", lambda: "needs more")
    monkeypatch.setattr("stackwise.training.updates.lacking", lambda: "needs more")
    names = {probe.name for probe in probes_for(CPU)}
    assert not {name for name in names if "8bit" in name or "nf4" in name or "int8" in name}
    assert "dequantise/fp8/float32" in names


def test_a_block_that_is_slower_than_its_pieces_is_planned_so(machine) -> None:
    """Rates of blocks that were half of what their pieces say double a block of that width."""
    shapes, ways = SHAPES["cpu"], ("forward", "backward")
    pieces = machine()

    def seconds(width: int, length: int, batch: int, known) -> tuple[float, float]:
        exp = experiment(width, length, batch, "bfloat16")
        return Pass(exp, sw.Placement(), known, length * batch).block(0, "active", False)

    blocks = {}
    for number, way in enumerate(ways):
        points = []
        for factor, shape in zip((2.0, 1.5), shapes, strict=True):
            flops = flops_of(experiment(*shape, "bfloat16"))[way]
            points.append((shape[0], flops / seconds(*shape, pieces)[number] / factor))
        blocks[f"bfloat16/{way}"] = tuple(points)
    whole = with_blocks(pieces, blocks)
    for width, factor in ((64, 2.0), (256, 2.0), (512, 3.0**0.5), (1024, 1.5), (4096, 1.5)):
        before, after = (seconds(width, 64, 2, known) for known in (pieces, whole))
        assert after == pytest.approx([factor * each for each in before])
    assert whole.together.keys() == blocks.keys(), "float32 was not measured"
