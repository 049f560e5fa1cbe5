"""Features elu(x) + 1, against all pairs written out; nothing of a later token is felt."""

import pytest
import torch
import torch.nn.functional as F

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION, build_attention
from stackwise.model.attention.linear import LOWEST, elu_plus_one, featured
from stackwise.model.shape import RackShape, attention_shape


def layer_of(chunk=64, **options):
    torch.manual_seed(0)
    params = parse(ATTENTION, {"kind": "linear", "chunk": chunk}, "attention", "kind")
    shape = attention_shape(RackShape(d_model=32, heads=4, **options), 0)
    return build_attention(shape, params).double().requires_grad_(False)


def slow(layer, x_BTD, causal):
    """Equation 4 of arXiv 2006.16236, all pairs."""
    q, k, v = layer.heads(x_BTD)
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).mT
    if causal:
        weights = weights.tril()
    y_BHTE = weights / weights.sum(-1, keepdim=True) @ v
    return layer.out(y_BHTE.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize("chunk", [1, 4, 7, 64])
@pytest.mark.parametrize("options", [{}, {"positions": "none"}, {"qk_norm": True, "bias": True}])
def test_sums_give_what_all_pairs_give(options, chunk, causal):
    layer = layer_of(chunk, **options)
    x_BTD = torch.randn(2, 20, 32, dtype=torch.float64)
    found, wanted = layer(x_BTD, causal=causal), slow(layer, x_BTD, causal)
    # Means of 20 values of order one, by positive weights: float64 rounding.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


def test_features_are_elu_and_one_also_where_that_rounds_to_nothing():
    x = torch.tensor([-30.0, -5.0, -1e-3, 0.0, 0.5, 9.0])
    exact = torch.where(x > 0, x.double() + 1, x.double().exp())
    assert float(F.elu(x)[0] + 1) == 0
    # One rounding of an exponential and one of a sum, 2^-24 each.
    torch.testing.assert_close(elu_plus_one(x).double(), exact, rtol=2**-22, atol=0)
    assert float(elu_plus_one(torch.tensor(-1e9))) == pytest.approx(
        float(torch.tensor(LOWEST).exp())
    )


@pytest.mark.parametrize("causal", [False, True])
def test_the_gradient_is_right(causal):
    layer = layer_of(3)
    x_BTD = torch.randn(1, 5, 32, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: layer(x, causal=causal), (x_BTD,), fast_mode=True)


def test_a_huge_future_key_is_not_felt_before_it():
    layer = layer_of(4)
    x_BTD = torch.randn(1, 16, 32, dtype=torch.float64)
    huge_BTD = x_BTD.clone()
    huge_BTD[:, 12] *= 1e6
    moved_T = (layer(x_BTD, causal=True) - layer(huge_BTD, causal=True)).abs()[0].amax(-1)
    assert moved_T[:12].max() == 0
    assert moved_T[12:].min() > 1e-6


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e6])
def test_huge_inputs_stay_finite(scale, causal):
    layer = layer_of(4).float().requires_grad_(True)
    x_BTD = (torch.randn(2, 10, 32) * scale).requires_grad_()
    y_BTD = layer(x_BTD, causal=causal)
    y_BTD.sum().backward()
    assert y_BTD.isfinite().all() and x_BTD.grad.isfinite().all()


def test_weights_are_positive_and_the_last_token_sees_the_same_both_ways():
    layer = layer_of(4)
    x_BTD = torch.randn(2, 11, 32, dtype=torch.float64)
    q, k, _ = featured(layer.heads(x_BTD))
    assert (q @ k.mT > 0).all()
    causal_BTD = layer(x_BTD, causal=True)
    for end in (1, 4, 11):
        whole_BTD = layer(x_BTD[:, :end], causal=False)
        torch.testing.assert_close(causal_BTD[:, end - 1], whole_BTD[:, -1], rtol=0, atol=1e-13)


def test_compiled_it_is_the_same():
    layer = layer_of(4).float()
    x_BTD = torch.randn(1, 12, 32)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_BTD, causal=True), layer(x_BTD, causal=True))
