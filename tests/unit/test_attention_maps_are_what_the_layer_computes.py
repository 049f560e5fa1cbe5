"""A map applied to the values gives what the layer gave, and its rows sum to one."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.attention_maps import MAPS, attention_map, map_flops
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

KINDS = [
    ("mha", {}),
    ("mha", {"window": 3}),
    ("mha", {"qk_norm": True, "positions": "none", "bias": True}),
    ("gqa", {"kv_heads": 2}),
    ("mla", {}),
    ("mla", {"window": [2, None]}),
    ({"kind": "mla", "q_rank": 12, "v_dim": 11, "nope_dim": 6}, {}),
    ({"kind": "mla", "nope_dim": 3, "rope_dim": 2, "v_dim": 5}, {"bias": True}),
    ({"kind": "mla", "rope_dim": 0}, {}),
    ("mqa", {}),
    ("linear", {}),
    ("window:3", {"kv_heads": 2}),
    ({"kind": "kernel", "features": 16, "chunk": 4}, {}),
    ({"kind": "kernel", "features": 16, "map": "gaussian"}, {}),
    ({"kind": "kernel", "features": 2, "map": "laplacian"}, {}),
]


def rack_of(attention, changes, dtype=torch.float64):
    shape = RackShape(stacks=2, blocks_per_stack=2, d_model=32, heads=4, d_ff=32, **changes)
    rack = Rack(shape, attention, 50, seed=3)
    # So that attention is far from even, and a wrong map cannot pass.
    for parameter in rack.parameters():
        parameter.data.mul_(3.0)
    return rack.to(dtype).requires_grad_(False)


def ids():
    return torch.randint(0, 50, (2, 13), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize(("attention", "changes"), KINDS, ids=str)
def test_the_map_times_the_values_is_the_layers_output(attention, changes, causal):
    rack = rack_of(attention, changes)
    found = attention_map(rack, ids(), "s1.0", causal=causal)
    layer = rack.stacks["s1"].blocks[0].attention
    y_BHTV = found.weights_BHTS @ found.values_BHSV
    again_BTD = layer.out(y_BHTV.transpose(1, 2).flatten(2))
    # The largest numbers are some hundreds; sums in another order lose a few bits of 52.
    assert (again_BTD - found.output_BTD).abs().max() < 1e-9 * found.output_BTD.abs().max()
    assert found.weights_BHTS.shape == (2, 4, 13, 13)
    uneven = (found.weights_BHTS.amax(-1) - 1 / 13).abs().max()
    assert uneven > 0.05


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize(("attention", "changes"), KINDS[:13], ids=str)
def test_rows_sum_to_one_over_what_is_seen(attention, changes, causal):
    found = attention_map(rack_of(attention, changes), ids(), "s1.0", causal=causal)
    assert torch.allclose(found.weights_BHTS.sum(-1), torch.ones(2, 4, 13).double(), atol=1e-12)
    place_T = torch.arange(13)
    ahead_TT = place_T[None] - place_T[:, None]
    unseen_TT = torch.zeros(13, 13, dtype=torch.bool)
    if causal:
        unseen_TT |= ahead_TT > 0
    if found.window is not None:
        unseen_TT |= ahead_TT.abs() > found.window
    assert not found.weights_BHTS[..., unseen_TT].any()
    assert (found.weights_BHTS[..., ~unseen_TT] > 0).all()


def test_rows_at_the_floor_are_said_to_sum_to_less():
    attention = {"kind": "kernel", "features": 2, "map": "laplacian", "gain": 1.0}
    found = attention_map(rack_of(attention, {}), ids(), "s1.0", causal=False)
    low = (found.weights_BHTS.sum(-1) < 1 - 1e-9).double().mean()
    assert low > 0
    assert f"{100 * low:.1f} % of the rows sum to less than one" in found.note


def test_each_block_has_its_own_window():
    rack = rack_of("mha", {"window": [2, None]})
    assert attention_map(rack, ids(), "s0.0", causal=False).window == 2
    assert attention_map(rack, ids(), "s0.1", causal=False).window is None


def test_it_is_of_the_path_that_is_named():
    rack = rack_of("mha", {})
    whole = attention_map(rack, ids(), "s1.0", causal=False)
    alone = attention_map(rack, ids(), "s1.0", causal=False, path=("s1",))
    assert not torch.allclose(whole.weights_BHTS, alone.weights_BHTS)
    with pytest.raises(ValueError, match=r"block 's0.0' is not in the path; known: s1.0, s1.1"):
        attention_map(rack, ids(), "s0.0", causal=False, path=("s1",))


def test_the_rack_stops_after_the_block_and_forgets_the_hook():
    rack = rack_of("mha", {})
    ran = []
    for block in rack.blocks(("s0", "s1")):
        block.register_forward_hook(lambda *_: ran.append(1))
    attention_map(rack, ids(), "s0.1", causal=False)
    assert len(ran) == 2
    assert not any(block.attention._forward_hooks for block in rack.blocks(("s0", "s1")))


@pytest.mark.parametrize("attention", ["mha", "mla"])
def test_bfloat16_racks_are_read_as_they_compute(attention):
    shape = RackShape(stacks=1, d_model=32, heads=4)
    rack = Rack(shape, attention, 50, seed=3, dtype=torch.bfloat16).requires_grad_(False)
    found = attention_map(rack, ids(), "s0.0", causal=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_BHTV = (found.weights_BHTS @ found.values_BHSV.float()).bfloat16()
        again_BTD = rack.stacks["s0"].blocks[0].attention.out(y_BHTV.transpose(1, 2).flatten(2))
    # bfloat16 has 8 bits: one rounding more or less is 1/256 of the largest.
    assert (again_BTD - found.output_BTD).abs().max() <= found.output_BTD.abs().max() / 100


def test_a_kind_of_ones_own_says_how_it_is_read(monkeypatch):
    rack = rack_of("mha", {})
    monkeypatch.delitem(MAPS, "mha")
    with pytest.raises(ValueError, match=r"attention 'mha' has no map.*add it to stackwise.att"):
        attention_map(rack, ids(), "s0.0", causal=False)


@pytest.mark.parametrize(
    "attention",
    ["mha", "mla", {"kind": "kernel", "features": 16}, "mqa", "linear", "window:3"],
    ids=["mha", "mla", "kernel", "mqa", "linear", "window"],
)
def test_it_costs_at_most_what_is_said(attention):
    exp = sw.Experiment(
        rack={"stacks": 2, "blocks_per_stack": 2, "d_model": 32, "heads": 4},
        attention=attention,
    )
    rack = Rack(exp.rack, exp.attention, 256)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        attention_map(rack, ids()[:1], "s1.0", causal=False)
    said = map_flops(exp, "s1.0", ("s0", "s1"), 13)
    assert 0.9 * said <= counter.get_total_flops() <= said
