"""Who sees whom, by changing one token and looking at which logits move; and shared key heads."""

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, build_attention, check_attention
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape, attention_shape

CHANGED, LENGTH = 5, 12


def small_rack(kind, **changes):
    kv_heads = 2 if kind == "gqa" else None
    options = {"kernel": {"features": 16, "chunk": 4}, "linear": {"chunk": 4}}.get(kind, {})
    shape = RackShape(
        stacks=1, blocks_per_stack=2, d_model=32, heads=4, kv_heads=kv_heads, d_ff=32, **changes
    )
    attention = parse(ATTENTION, {"kind": kind, **options}, "attention", "kind")
    return Rack(shape, attention, vocab=11).double().requires_grad_(False)


def moved(rack, causal):
    """Which positions' logits change, beyond rounding, when token CHANGED does."""
    ids_BT = torch.arange(LENGTH)[None] % 11
    other_BT = ids_BT.clone()
    other_BT[0, CHANGED] = 9
    difference_TV = (rack(ids_BT, causal=causal) - rack(other_BT, causal=causal)).abs()[0]
    # Float64 rounding over numbers of order one is below 1e-14; a real change is over 1e-8.
    return [i for i, most in enumerate(difference_TV.amax(-1).tolist()) if most > 1e-11]


@pytest.mark.parametrize("kind", sorted(ATTENTION))
@pytest.mark.parametrize("positions", ["rope", "none"])
def test_a_token_changes_nothing_before_it_when_causal(kind, positions):
    rack = small_rack(kind, positions=positions)
    assert moved(rack, causal=True) == list(range(CHANGED, LENGTH))


@pytest.mark.parametrize("kind", sorted(ATTENTION))
def test_a_token_changes_both_sides_when_bidirectional(kind):
    assert moved(small_rack(kind), causal=False) == list(range(LENGTH))


@pytest.mark.parametrize("name", ["gaussian", "laplacian", "uniform"])
def test_fourier_features_are_causal_too(name):
    shape = RackShape(stacks=1, blocks_per_stack=2, d_model=32, heads=4, d_ff=32)
    attention = parse(ATTENTION, {"kind": "kernel", "map": name, "chunk": 4}, "attention", "kind")
    rack = Rack(shape, attention, vocab=11).double().requires_grad_(False)
    assert moved(rack, causal=True) == list(range(CHANGED, LENGTH))
    assert moved(rack, causal=False) == list(range(LENGTH))


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "mla"])
def test_two_blocks_of_window_two_reach_four_tokens(kind):
    rack = small_rack(kind, window=2)
    assert moved(rack, causal=False) == list(range(CHANGED - 4, CHANGED + 5))
    assert moved(rack, causal=True) == list(range(CHANGED, CHANGED + 5))


def test_windows_are_cycled_over_blocks():
    rack = small_rack("mha", window=(1, None))
    assert moved(rack, causal=False) == list(range(LENGTH))
    near = small_rack("mha", window=(1, 2))
    assert moved(near, causal=False) == list(range(CHANGED - 3, CHANGED + 4))


def test_a_window_as_long_as_the_text_hides_nothing():
    ids_BT = torch.arange(LENGTH)[None] % 11
    for causal in (False, True):
        whole = small_rack("mha")(ids_BT, causal=causal)
        windowed = small_rack("mha", window=LENGTH - 1)(ids_BT, causal=causal)
        assert torch.equal(whole, windowed)


@pytest.mark.parametrize("causal", [False, True])
def test_gqa_equals_mha_with_its_keys_and_values_repeated(causal):
    torch.manual_seed(0)
    few = RackShape(d_model=32, heads=4, kv_heads=2, qk_norm=True)
    many = few.model_copy(update={"kv_heads": None})
    gqa = build_attention(attention_shape(few, 0), parse(ATTENTION, "gqa", "attention", "kind"))
    mha = build_attention(attention_shape(many, 0), parse(ATTENTION, "mha", "attention", "kind"))
    state = gqa.state_dict()
    q_HED, k_GED, v_GED = state["qkv.weight"].unflatten(0, (-1, 8)).split((4, 2, 2))
    repeated = (part.repeat_interleave(2, dim=0) for part in (k_GED, v_GED))
    state["qkv.weight"] = torch.cat((q_HED, *repeated)).flatten(0, 1)
    mha.load_state_dict(state)
    x_BTD = torch.randn(2, 9, 32, dtype=torch.float64)
    y_BTD, z_BTD = gqa.double()(x_BTD, causal=causal), mha.double()(x_BTD, causal=causal)
    # The same sums of 32 and 9 products of order one: float64 rounding.
    torch.testing.assert_close(y_BTD, z_BTD, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("kind", "changes", "text"),
    [
        (
            "mha",
            {"kv_heads": 2},
            "attention: mha has one key head per query head, but rack.kv_heads=2 and "
            "rack.heads=4; use attention=gqa or leave kv_heads empty",
        ),
        (
            "mla",
            {"kv_heads": 2},
            "attention: mla has no groups of key heads, but rack.kv_heads=2 and rack.heads=4; "
            "leave kv_heads empty or use attention=gqa",
        ),
        (
            "mla",
            {"qk_norm": True},
            "attention: mla normalises its latents, but rack.qk_norm=True; "
            "set qk_norm=false or use attention=mha",
        ),
        (
            {"kind": "mla", "rope_dim": 5},
            {},
            "attention.rope_dim: 5 must be even, since RoPE turns pairs",
        ),
        (
            {"kind": "mla", "rope_dim": 4},
            {"positions": "none"},
            "attention.rope_dim: 4 numbers are turned by RoPE, and this rack has none; leave "
            "rope_dim empty, or set rack.positions=rope",
        ),
        (
            "kernel",
            {"kv_heads": 2},
            "attention: kernel has one key head per query head, but rack.kv_heads=2 and "
            "rack.heads=4; leave kv_heads empty or use attention=gqa",
        ),
        (
            "kernel",
            {"window": 3},
            "attention: kernel sums over all tokens, but rack.window=3; "
            "leave window empty or use attention=mha",
        ),
        (
            "kernel",
            {"qk_norm": True},
            "attention: kernel normalises queries and keys itself, but rack.qk_norm=True; "
            "set qk_norm=false",
        ),
        (
            {"kind": "kernel", "gain": 1.0},
            {"head_dim": 256},
            "attention.gain: 1.0 lets features overflow float32 with head_dim=256; "
            "use at most 0.37",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(kind, changes, text):
    params = parse(ATTENTION, kind, "attention", "kind")
    shape = attention_shape(RackShape(d_model=32, heads=4, **changes), 0)
    assert ATTENTION[params.choice].check(shape, params) == [text]


def test_every_block_is_checked_not_the_first_alone():
    kernel = parse(ATTENTION, "kernel", "attention", "kind")
    windows = RackShape(d_model=32, heads=4, window=(None, 4, 2, 4))
    assert check_attention(windows, kernel) == [
        "attention: kernel sums over all tokens, but rack.window=4; "
        "leave window empty or use attention=mha",
        "attention: kernel sums over all tokens, but rack.window=2; "
        "leave window empty or use attention=mha",
    ]
    first = windows.model_copy(update={"stacks": 1, "blocks_per_stack": 1})
    assert check_attention(first, kernel) == []
