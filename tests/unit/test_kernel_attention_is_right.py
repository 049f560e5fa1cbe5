"""Random features: how near they come to the kernel, and that no future token is felt."""

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, build_attention
from stackwise.model.attention.kernel import (
    Kernel,
    attend,
    attend_causal,
    directions,
    feature_map,
    features_made,
)
from stackwise.model.shape import RackShape, attention_shape

MAPS = ["softmax_positive", "gaussian", "laplacian", "uniform"]


def layer_of(seed=0, **options):
    torch.manual_seed(seed)
    params = parse(ATTENTION, {"kind": "kernel", **options}, "attention", "kind")
    shape = attention_shape(RackShape(d_model=32, heads=4), 0)
    return build_attention(shape, params).requires_grad_(False)


def error(std, features, draws=10, width=32, length=128):
    """Relative error of FAVOR+ against exact softmax attention, queries and keys of this std."""
    found = []
    for seed in range(draws):
        generator = torch.Generator().manual_seed(seed)
        q, k, v = torch.randn(3, 1, 1, length, width, generator=generator)
        q, k = q * std, k * std
        omega = directions(Kernel(features=features, feature_seed=seed), width)
        made = [feature_map(x, omega, "softmax_positive") for x in (q, k)]
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        found.append((attend(*made, v) - exact).norm() / exact.norm())
    return float(torch.stack(found).mean())


@pytest.mark.parametrize(("std", "about"), [(0.25, 0.05), (0.5, 0.28), (0.75, 1.03)])
def test_the_error_of_128_features_is_as_published_in_the_docs(std, about):
    # Ten draws of a heavy-tailed error: a quarter either way.
    assert 0.75 * about < error(std, 128) < 1.34 * about


def test_more_features_come_nearer():
    errors = [error(0.5, features) for features in (32, 128, 512)]
    assert errors[0] > 1.3 * errors[1] > 1.3 * 1.3 * errors[2]


@pytest.mark.parametrize("name", MAPS)
def test_products_of_features_estimate_the_kernel(name):
    width, count = 8, 40_000
    generator = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 64, width, generator=generator) * 0.25
    x, y = q * width**-0.25, k * width**-0.25
    kernel = {
        "softmax_positive": (q * k).sum(-1).div(width**0.5).exp(),
        "gaussian": (-(x - y).square().sum(-1) / 2).exp(),
        "laplacian": (-(x - y).abs().sum(-1) / width**0.5).exp(),
        "uniform": torch.sinc(3**0.5 * (x - y) / torch.pi).prod(-1),
    }[name]
    omega = directions(Kernel(map=name, features=count), width)
    product = (feature_map(q, omega, name) * feature_map(k, omega, name)).sum(-1)
    # Means of 20,000 or more terms of standard deviation at most 1.5: five standard errors.
    torch.testing.assert_close(product, kernel, rtol=0, atol=5 * 1.5 / (count / 2) ** 0.5)


def test_directions_of_a_block_are_orthogonal_and_as_long_as_normal_ones():
    omega = directions(Kernel(features=64), 32)
    block = omega[:, :32]
    gram = block.T @ block
    assert (gram - gram.diag().diag()).abs().max() < 1e-4
    assert 28 < omega.square().sum(0).mean() < 36


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
def test_chunks_change_rounding_only(name, chunk):
    torch.manual_seed(0)
    layer = layer_of(map=name, features=16).double()
    q, k = (layer.features(x) for x in torch.randn(2, 2, 4, 20, 8, dtype=torch.float64))
    v = torch.randn(2, 4, 20, 8, dtype=torch.float64)
    weights = (q @ k.mT).tril()
    slow = (
        weights
        @ v
        / weights.sum(-1, keepdim=True).maximum(
            torch.full((), -torch.inf)
            if name == "softmax_positive"
            else 0.01 * torch.arange(1.0, 21)[:, None]
        )
    )
    floor = None if name == "softmax_positive" else 0.01
    # Sums of 20 products of order one over a sum of at least 0.01.
    torch.testing.assert_close(attend_causal(q, k, v, chunk, floor), slow, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MAPS)
def test_the_last_token_sees_the_same_causally_or_not(name):
    layer = layer_of(map=name, features=32, chunk=4).double()
    x_BTD = torch.randn(2, 11, 32, dtype=torch.float64)
    causal_BTD = layer(x_BTD, causal=True)
    for end in (1, 4, 11):
        whole_BTD = layer(x_BTD[:, :end], causal=False)
        torch.testing.assert_close(causal_BTD[:, end - 1], whole_BTD[:, -1], rtol=0, atol=1e-12)


def with_epsilon(q, k, v, omega):
    """FAVOR+ as often written, causal: a maximum over all keys, and 1e-4 added to features."""
    q, k = (x * x.shape[-1] ** -0.25 for x in (q, k))
    log_q, log_k = (x @ omega - x.square().sum(-1, keepdim=True) / 2 for x in (q, k))
    phi_q = (log_q - log_q.amax(-1, keepdim=True)).exp() + 1e-4
    phi_k = (log_k - log_k.amax((-1, -2), keepdim=True)).exp() + 1e-4
    weights = (phi_q @ phi_k.mT).tril()
    return weights @ v / weights.sum(-1, keepdim=True)


def test_a_huge_future_key_is_not_felt_before_it():
    layer = layer_of(features=128)
    q, k, v = torch.randn(3, 1, 4, 16, 8, generator=torch.Generator().manual_seed(3))
    huge = k.clone()
    huge[:, :, 12] = -1e4 * k[:, :, 12]

    def ours(keys):
        return attend_causal(layer.features(q), layer.features(keys), v, 4)

    assert (ours(k) - ours(huge))[:, :, :12].abs().max() < 1e-6
    assert (ours(k) - ours(huge))[:, :, 12:].abs().max() > 1e-3


def test_an_epsilon_and_a_maximum_would_let_it_be_felt():
    """The failing control: the maximum shrinks all features, the epsilon takes their place."""
    generator = torch.Generator().manual_seed(3)
    omega = directions(Kernel(), 32)
    q, k, v = torch.randn(3, 1, 4, 16, 32, generator=generator)
    big = k.clone()
    big[:, :, 12] = omega[:, 0] * 32**0.25  # where the feature of omega's first column is largest
    moved = with_epsilon(q, k, v, omega) - with_epsilon(q, big, v, omega)
    assert moved[:, :, :12].abs().max() > 0.5
    floorless = [feature_map(x, omega, "softmax_positive") for x in (q, k, big)]
    ours = [attend_causal(floorless[0], keys, v, 4) for keys in floorless[1:]]
    assert (ours[0] - ours[1])[:, :, :12].abs().max() < 1e-6


@pytest.mark.parametrize("name", MAPS)
def test_huge_inputs_stay_finite(name):
    layer = layer_of(map=name, features=64)
    x_BTD = torch.randn(2, 40, 32) * 1e6
    x_BTD[:, 3] = 0
    for causal in (False, True):
        assert layer(x_BTD, causal=causal).isfinite().all()


@pytest.mark.parametrize("name", MAPS)
def test_the_gradient_is_right(name):
    layer = layer_of(map=name, features=8, chunk=3).double()
    x_BTD = torch.randn(1, 4, 32, dtype=torch.float64, requires_grad=True)
    for causal in (False, True):
        torch.autograd.gradcheck(lambda x, c=causal: layer(x, causal=c), (x_BTD,), fast_mode=True)


def test_directions_follow_the_seed_stay_still_and_are_saved():
    first, again, other = layer_of(), layer_of(seed=1), layer_of(feature_seed=1)
    assert torch.equal(first.omega_EM, again.omega_EM)
    assert not torch.equal(first.omega_EM, other.omega_EM)
    assert "omega_EM" in first.state_dict()
    assert "omega_EM" not in dict(first.named_parameters())


def test_cost_grows_with_the_length_and_not_with_its_square():
    entry, params = ATTENTION["kernel"], Kernel()
    shape = attention_shape(RackShape(d_model=32, heads=4), 0)
    per_token = [entry.score_flops(shape, params, n, True).forward for n in (128, 1024, 65536)]
    assert per_token[0] == per_token[1] == per_token[2]
    assert features_made(Kernel(map="gaussian", features=9)) == 8
