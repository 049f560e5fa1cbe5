"""Statistics of blocks against closed forms, and against a slow reading of the block itself."""

import math

import pytest
import torch
from torch import nn

import stackwise as sw
from stackwise.training.block_statistics import (
    SAMPLED,
    Moves,
    Site,
    of_step,
    step_of,
    watching,
    weight_norms,
)
from stackwise.training.optim import Optimizer
from stackwise.training.trained import freeze_all_but


def test_sizes_of_known_numbers():
    site, x_PD = Site(), torch.tensor([[3.0, -4.0], [3.0, 4.0]])
    for row_PD in x_PD.split(1):
        site.add(row_PD)
    # Mean squares of the features are 9 and 16.
    assert site.numbers() == pytest.approx(
        {"rms": math.sqrt(12.5), "mean": 1.5, "max_abs": 4.0, "kurtosis": (81 + 256) / 2 / 12.5**2}
    )


@pytest.mark.parametrize(("width", "alone"), [(7, False), (7, True), (64, True)])
def test_kurtosis_is_one_of_alike_features_and_the_width_of_a_single_one(width, alone):
    site, x_PD = Site(), torch.full((5, width), 2.0)
    if alone:
        x_PD[:, 1:] = 0
    site.add(x_PD)
    assert site.numbers()["kurtosis"] == pytest.approx(width if alone else 1.0)


def test_nothing_has_no_kurtosis():
    site = Site()
    site.add(torch.zeros(3, 4))
    found = site.numbers()
    assert found["rms"] == found["max_abs"] == 0.0
    assert math.isnan(found["kurtosis"])


def rack_of(**change):
    torch.manual_seed(0)
    shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=16, heads=2, **change)
    rack = sw.Rack(shape, "mha", 11)
    for parameter in rack.parameters():
        parameter.data.normal_(0, 0.3)
    return rack


def slow(block, x_BTD, time_B):
    """What a block adds, sub-layer by sub-layer, written out."""
    first, second = (None, None) if block.time is None else block.time(time_B, x_BTD.dtype)

    def normal(norm, x, change):
        y = norm(x)
        return y if change is None else change.normal(y)

    def gated(y, change):
        return block.gain * (y if change is None else y * change.gate)

    if block.post:
        a = gated(block.attention(x_BTD, causal=False), first)
        x_BTD = normal(block.attention_norm, x_BTD + a, first)
        inside = x_BTD
        f = gated(block.ffn(inside), second)
        out = normal(block.ffn_norm, x_BTD + f, second)
    else:
        a = gated(block.attention(normal(block.attention_norm, x_BTD, first), causal=False), first)
        x_BTD = x_BTD + a
        inside = normal(block.ffn_norm, x_BTD, second)
        f = gated(block.ffn(inside), second)
        out = x_BTD + f
    gate = (block.ffn.up if block.ffn.gate is None else block.ffn.gate)(inside)
    return a, f, out, gate


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"norm_place": "post", "norm": "layernorm", "ffn": "gelu"},
        {"residual_gain": 0.5},
        {"time": "sinusoidal"},
        {"time": "sinusoidal", "norm_place": "post"},
    ],
)
@torch.no_grad()
def test_what_is_watched_is_what_the_block_adds(change):
    rack, ids_BT = rack_of(**change), torch.randint(0, 13, (6, 8))
    time_B = rack.time_of(ids_BT, torch.linspace(0.1, 0.9, 6))
    with watching(rack, ("s0", "s1"), ids_BT.numel()) as found:
        for part, level in zip(ids_BT.split(4), torch.linspace(0.1, 0.9, 6).split(4), strict=True):
            list(rack.exits(part, path=("s0", "s1"), time_B=level))
    seen = found()
    assert list(seen) == ["embedding", "s0.0", "s1.0"]
    x_BTD = rack.embedding(ids_BT)
    expected = {"embedding": {"residual": x_BTD}}
    for name, block in zip(("s0.0", "s1.0"), rack.blocks(("s0", "s1")), strict=True):
        a, f, x_BTD, gate = slow(block, x_BTD, time_B)
        expected[name] = {"attention": a, "ffn": f, "residual": x_BTD}
        dead = float((gate <= 0).flatten(0, 1).all(0).double().mean())
        assert seen[name]["dead_frac"] == pytest.approx(dead, abs=1e-12)
    for name, sites in expected.items():
        for site, value in sites.items():
            wide, got = value.double(), seen[name][site]
            square = wide.flatten(0, 1).square().mean(0)
            # The stream is float32: a difference of it is right to 1e-7 of the stream.
            close = {"rel": 1e-4, "abs": 1e-6 * float(x_BTD.abs().max())}
            assert got["rms"] == pytest.approx(float(wide.square().mean().sqrt()), **close)
            assert got["mean"] == pytest.approx(float(wide.mean()), **close)
            assert got["max_abs"] == pytest.approx(float(wide.abs().max()), **close)
            kurtosis = float(square.square().mean() / square.mean() ** 2)
            assert got["kurtosis"] == pytest.approx(kurtosis, rel=1e-3)


def test_watching_changes_no_bit_and_leaves_no_hook():
    rack, ids_BT = rack_of(), torch.randint(0, 13, (6, 8))
    before = rack(ids_BT)
    with watching(rack, ("s0", "s1"), 8):
        assert torch.equal(rack(ids_BT), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in rack.modules())


def test_a_unit_that_is_never_positive_is_dead():
    rack, ids_BT = rack_of(), torch.randint(0, 13, (6, 8))
    block = next(rack.blocks(["s0"]))
    with torch.no_grad():
        block.ffn.gate.weight[:5] = 0  # silu(0) = 0, whatever comes
    with watching(rack, ("s0",), 48) as found, torch.no_grad():
        rack.hidden(ids_BT, path=("s0",))
    units = len(block.ffn.gate.weight)
    assert found()["s0.0"]["dead_frac"] >= 5 / units


def trainee(dtype=torch.float32):
    rack = rack_of()
    named = freeze_all_but(rack.parts(), sw.Stage(path=("s0", "s1"), active=("s1",), head=False))
    for parameter in named.values():
        parameter.data = parameter.data.to(dtype) if parameter.ndim > 1 else parameter.data
    return named, Optimizer(sw.Experiment().optim, named)


def test_moves_and_norms_are_those_of_the_tensors():
    named, optimizer = trainee()
    before = {key: p.detach().double().clone() for key, p in named.items()}
    moves = Moves(named, optimizer)
    for p in named.values():
        p.grad = torch.randn_like(p)
    optimizer.step()
    after, length, change = moves.ratios(), {}, {}
    for key, p in named.items():
        block = "embedding" if key[0] == "embedding" else "s1.0"
        length[block] = length.get(block, 0.0) + float(before[key].square().sum())
        moved = (p.detach().double() - before[key]).square().sum()
        change[block] = change.get(block, 0.0) + float(moved)
        assert p.numel() <= SAMPLED, "so all of it is looked at, and the ratio is exact"
    expected = {block: math.sqrt(change[block] / length[block]) for block in length}
    assert after == pytest.approx(expected, rel=1e-6)
    norms = weight_norms(named)
    squares = {}
    for key, p in named.items():
        block = "embedding" if key[0] == "embedding" else "s1.0"
        squares[block] = squares.get(block, 0.0) + float(p.detach().double().square().sum())
    assert norms == pytest.approx({k: math.sqrt(v) for k, v in squares.items()}, rel=1e-6)
    step = of_step({"s1.0": 2.0}, norms, after)["s1.0"]
    assert step["grad_to_weight"] == 2.0 / norms["s1.0"]
    assert step["update_to_weight"] == after["s1.0"]


def test_a_bfloat16_weight_moves_by_what_its_master_does():
    named, optimizer = trainee(torch.bfloat16)
    optimizer.begin()
    moves = Moves(named, optimizer)
    optimizer.rate = 1e-6  # a thousandth of what bfloat16 can tell
    for p in named.values():
        p.grad = torch.ones_like(p)
    optimizer.step()
    ratios = moves.ratios()
    # Of matrices alone: each number moves by the rate, the weights are 0.3 in the mean square.
    assert 0 < ratios["s1.0"] < 1e-4
    assert ratios["s1.0"] == pytest.approx(1e-6 / 0.3, rel=0.1)


@pytest.mark.parametrize("size", [1, 4096, 4097, 100_000])
def test_a_sample_is_small_and_keeps_to_no_column(size):
    every = step_of(torch.empty(size))
    assert every % 2 == 1
    assert len(range(0, size, every)) <= SAMPLED


def test_a_sampled_ratio_is_near_the_exact_one():
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(300, 400))
    optimizer = Optimizer(sw.Experiment().optim, {("s0", "blocks.0.w"): p})
    moves, change = Moves({("s0", "blocks.0.w"): p}, optimizer), torch.randn(300, 400) * 0.01
    before = p.detach().clone()
    p.data += change
    # Of n independent numbers a mean square is known to sqrt(2 / n): four times that, twice.
    assert moves.ratios()["s0.0"] == pytest.approx(
        float(change.norm() / before.norm()), rel=4 * math.sqrt(2 / SAMPLED)
    )
