"""Keys written out, or absorbed into queries: the same attention."""

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, build_attention
from stackwise.model.attention.mla import Mla, absorbed, cache_floats, sizes
from stackwise.model.shape import RackShape, attention_shape

OPTIONS = [
    {},
    {"q_rank": 12},
    {"kv_rank": 5, "nope_dim": 6, "rope_dim": 4, "v_dim": 3},
    {"nope_dim": 3, "rope_dim": 2, "v_dim": 11},
    {"rope_dim": 0},
]


def layer_of(options, seed=0, **changes):
    torch.manual_seed(seed)
    shape = attention_shape(RackShape(d_model=32, heads=4, **changes), 0)
    params = parse(ATTENTION, {"kind": "mla", **options}, "attention", "kind")
    return build_attention(shape, params).double().requires_grad_(False)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("changes", [{}, {"positions": "none"}, {"bias": True}])
def test_naive_and_absorbed_agree(options, changes):
    layer = layer_of(options, **changes)
    x_BTD = torch.randn(2, 9, 32, dtype=torch.float64)
    naive_BTD = layer(x_BTD, causal=False)
    assert (naive_BTD - absorbed(layer, x_BTD, *layer.latent(x_BTD))).abs().max() < 1e-12


def test_it_is_attention_as_published():
    """Equations 9 to 19 of arXiv 2405.04434, one head and one pair of tokens at a time."""
    layer = layer_of({"q_rank": 12, "kv_rank": 5, "nope_dim": 6, "rope_dim": 4, "v_dim": 3})
    x_TD = torch.randn(7, 32, dtype=torch.float64)

    def turned(x_R, place):
        angle_F = place / 10_000 ** (torch.arange(0, 4, 2, dtype=torch.float64) / 4)
        a, b = x_R[0::2], x_R[1::2]
        cos, sin = angle_F.cos(), angle_F.sin()
        return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten()

    def normed(x_C):
        return x_C / (x_C.square().mean() + 1e-5).sqrt()

    latents = [normed(layer.kv_down.weight @ x_D) for x_D in x_TD]
    shared = [turned(layer.k_rope.weight @ x_D, j) for j, x_D in enumerate(x_TD)]
    want = []
    for i, x_D in enumerate(x_TD):
        q_HE = (layer.q.weight @ normed(layer.q_down.weight @ x_D)).view(4, 10)
        heads = []
        for head in range(4):
            q_E = torch.cat((q_HE[head, :6], turned(q_HE[head, 6:], i)))
            keys = [
                torch.cat(((layer.k.weight @ c).view(4, 6)[head], r))
                for c, r in zip(latents, shared, strict=True)
            ]
            weight_T = torch.stack([q_E @ key / 10**0.5 for key in keys[: i + 1]]).softmax(0)
            values = [(layer.v.weight @ c).view(4, 3)[head] for c in latents[: i + 1]]
            heads.append(sum(w * v for w, v in zip(weight_T, values, strict=True)))
        want.append(layer.out.weight @ torch.cat(heads))
    got_BTD = layer(x_TD[None], causal=True)
    # RoPE's tables are float32: angles of up to 6 radians are off by 6 * 2^-24.
    torch.testing.assert_close(got_BTD[0], torch.stack(want), rtol=0, atol=1e-6)


def test_a_decoder_reads_a_longer_cache_than_it_has_queries():
    layer = layer_of({}, positions="none")
    x_BTD = torch.randn(1, 9, 32, dtype=torch.float64)
    last_BTD = absorbed(layer, x_BTD[:, -1:], *layer.latent(x_BTD))
    whole_BTD = layer(x_BTD, causal=True)
    assert (last_BTD - whole_BTD[:, -1:]).abs().max() < 1e-12


def test_its_cache_is_smaller_than_that_of_mha_and_of_published_size():
    toy = attention_shape(RackShape(d_model=128, heads=4), 0)
    assert cache_floats(toy, Mla()) == 64 + 16
    assert ATTENTION["mha"].cache_floats(toy, ATTENTION["mha"].params()) == 256
    published = attention_shape(RackShape(d_model=5120, heads=128, head_dim=128), 0)
    asked = Mla(q_rank=1536, nope_dim=128, rope_dim=64)
    assert sizes(published, asked).kv_rank == 512
    assert cache_floats(published, asked) == 576


@pytest.mark.parametrize(("heads", "kv_rank"), [(1, 16), (2, 32), (3, 48), (8, 128), (32, 128)])
def test_the_latent_is_half_of_all_heads_and_at_most_four(heads, kv_rank):
    shape = attention_shape(RackShape(d_model=64, heads=heads, head_dim=32), 0)
    assert sizes(shape, Mla()).kv_rank == kv_rank
