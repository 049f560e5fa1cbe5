"""`window`, by spans, against softmax over all pairs under a mask; `mqa` against `gqa`."""

import random

import pytest
import torch

import stackwise as sw
from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, build_attention, window
from stackwise.model.attention.window import Window, attend_near, spans
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape, attention_shape


def slow(q_BHTE, k_BGTE, v_BGTE, seen, causal):
    """Every pair, and a mask."""
    each = q_BHTE.shape[1] // k_BGTE.shape[1]
    k, v = (x.repeat_interleave(each, dim=1) for x in (k_BGTE, v_BGTE))
    i, j = torch.meshgrid(*[torch.arange(q_BHTE.shape[2])] * 2, indexing="ij")
    hidden = (i - j).abs() > seen
    if causal:
        hidden |= j > i
    scores = (q_BHTE @ k.mT / q_BHTE.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ v


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("seed", range(12))
def test_spans_give_what_a_mask_over_all_pairs_gives(seed, causal, monkeypatch):
    draw = random.Random(seed)
    monkeypatch.setattr(window, "LEAST", draw.choice([1, 3, 8]))
    heads, groups = draw.choice([(2, 2), (4, 2), (3, 1)])
    length, seen = draw.randint(1, 60), draw.randint(1, 12)
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(2, n, length, 4, generator=generator, dtype=torch.float64).requires_grad_()
        for n in (heads, groups, groups)
    )
    found = attend_near(q, k, v, causal=causal, window=seen)
    wanted = slow(q, k, v, seen, causal)
    grad = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    ours, theirs = (torch.autograd.grad(y, (q, k, v), grad) for y in (found, wanted))
    # Sums of at most 60 numbers of order one, in another order.
    for a, b in zip((found, *ours), (wanted, *theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_it_is_a_rack_with_a_window_only_cheaper(causal):
    shape = RackShape(stacks=1, d_model=32, heads=4, kv_heads=2, d_ff=32, qk_norm=True)
    near = Rack(shape, "window:3", 50, seed=1).double()
    masked = Rack(shape.model_copy(update={"window": 3}), "gqa", 50, seed=1).double()
    ids_BT = torch.randint(0, 50, (2, 150), generator=torch.Generator().manual_seed(0))
    a, b = near(ids_BT, causal=causal), masked(ids_BT, causal=causal)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    entry, params = ATTENTION["window"], Window(window=3)
    flops = [
        entry.score_flops(attention_shape(shape, 0), params, n, causal).forward
        for n in (150, 300, 2400)
    ]
    assert flops[0] == flops[1] == flops[2] == 4 * spans(3, causal)[1] * 4 * 8


@pytest.mark.parametrize("length", [1, 5, 24, 25, 41])
@pytest.mark.parametrize("causal", [False, True])
def test_only_near_tokens_are_felt(causal, length, monkeypatch):
    monkeypatch.setattr(window, "LEAST", 4)
    shape = attention_shape(RackShape(d_model=32, heads=4), 0)
    layer = build_attention(shape, Window(window=3)).double().requires_grad_(False)
    x_BTD = torch.randn(1, length, 32, dtype=torch.float64)
    for changed in {0, length // 2, length - 1}:
        other_BTD = x_BTD.clone()
        other_BTD[0, changed] += 1e3
        moved_T = (layer(x_BTD, causal=causal) - layer(other_BTD, causal=causal)).abs()[0].amax(-1)
        last = min(length, changed + 4)
        first = changed if causal else max(0, changed - 3)
        assert moved_T.nonzero()[:, 0].tolist() == list(range(first, last))


def test_spans_compile_as_they_are():
    shape = attention_shape(RackShape(d_model=32, heads=4), 0)
    layer = build_attention(shape, Window(window=8)).requires_grad_(False)
    x_BTD = torch.randn(1, 200, 32)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    # The same float32 sums in another order.
    torch.testing.assert_close(compiled(x_BTD, causal=True), layer(x_BTD, causal=True))


@pytest.mark.parametrize("kv_heads", [None, 1])
@pytest.mark.parametrize("causal", [False, True])
def test_mqa_is_gqa_with_one_group_to_the_bit(kv_heads, causal):
    shape = RackShape(stacks=1, d_model=32, heads=4, kv_heads=kv_heads, d_ff=32, qk_norm=True)
    one = shape.model_copy(update={"kv_heads": 1})
    ids_BT = torch.arange(18).view(2, 9)
    mqa, gqa = Rack(shape, "mqa", 50, seed=3), Rack(one, "gqa", 50, seed=3)
    assert torch.equal(mqa(ids_BT, causal=causal), gqa(ids_BT, causal=causal))
    count = [sw.count_parameters(s, k, 50) for s, k in ((shape, "mqa"), (one, "gqa"))]
    assert count[0] == count[1] == sum(p.numel() for p in mqa.parameters()) - 2 * 32


@pytest.mark.parametrize(
    ("attention", "rack", "text"),
    [
        (
            "mqa",
            {"kv_heads": 4},
            "attention: mqa has one key head for all query heads, but rack.kv_heads=4; "
            "leave kv_heads empty or use attention=gqa",
        ),
        (
            "window:5",
            {"window": 3},
            "attention: window sees attention.window=5 tokens to each side, but rack.window=3; "
            "leave rack.window empty or use attention=gqa",
        ),
        ({"kind": "window", "window": 0}, {}, "attention.window: 0 must be 1 or more"),
        ("mha", {"window": 0}, "rack.window: 0 must be 1 or more; leave it empty for all"),
        ({"kind": "kernel", "features": 0}, {}, "attention.features: 0 must be 2 or more"),
        (
            {"kind": "mla", "kv_rank": 33},
            {},
            "attention.kv_rank: 33 > 32: a latent lies between d_model=32 and the 48 numbers of "
            "all heads' keys and values; use at most 32, or attention=mha",
        ),
        (
            {"kind": "mla", "nope_dim": 3, "rope_dim": 2, "q_rank": 21},
            {},
            "attention.q_rank: 21 > 20: a latent lies between d_model=32 and the 20 numbers of "
            "all heads' queries; use at most 20, or attention=mha",
        ),
        (
            {"kind": "mla", "rope_dim": 8},
            {},
            "attention.rope_dim: 8 leaves nothing of head_dim=8 without positions; lower it, or "
            "give nope_dim",
        ),
        (
            "linear",
            {"window": 3},
            "attention: linear sums over all tokens, but rack.window=3; "
            "leave window empty or use attention=window",
        ),
        (
            "linear",
            {"kv_heads": 2},
            "attention: linear has one key head per query head, but rack.kv_heads=2 and "
            "rack.heads=4; leave kv_heads empty or use attention=gqa",
        ),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused(attention, rack, text):
    with pytest.raises(sw.ExperimentError) as error:
        sw.Experiment(attention=attention, rack={"d_model": 32, "heads": 4, **rack})
    assert text in str(error.value).splitlines()
    assert len(str(error.value).splitlines()) == 1


def test_names_stand_for_their_kinds():
    assert parse(ATTENTION, "window:9", "attention", "kind") == Window(window=9)
