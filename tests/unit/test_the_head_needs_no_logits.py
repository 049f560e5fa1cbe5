"""The chunked loss and its gradients are those of the plain formula, without the logits."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import stackwise as sw
from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.training import chunked, layers
from stackwise.training.chunked import chunked_loss
from stackwise.training.layers import head_of

N, D, V = 37, 24, 101
HEADS = {
    "tied": {"tied": True},
    "its own": {"tied": False},
    "with a bias": {"tied": False, "head_bias": True},
    "BERT's": {"tied": True, "head_transform": True, "head_bias": True},
}


def inputs(dtype=torch.float64) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "x_ND": torch.randn(N, D, dtype=dtype),
        "weight_VD": torch.randn(V, D, dtype=dtype),
        "bias_V": torch.randn(V, dtype=dtype),
    }


def plain(x_ND, weight_VD, bias_V, target_N, scale_N):
    nats_N = F.cross_entropy(F.linear(x_ND, weight_VD, bias_V), target_N, reduction="none")
    return (scale_N * nats_N).sum()


@pytest.mark.parametrize("logits", [1, V + 3, 10 * V, N * V])
@pytest.mark.parametrize("wanted", list(itertools.product([False, True], repeat=3)), ids=str)
def test_loss_and_gradients_are_those_of_the_formula(monkeypatch, wanted, logits) -> None:
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", logits)
    target_N, scale_N = torch.randint(V, (N,)), torch.rand(N)
    exact = {
        key: value.requires_grad_(grad)
        for (key, value), grad in zip(inputs().items(), wanted, strict=True)
    }
    reference = plain(*exact.values(), target_N, scale_N.double())
    ours = {
        key: value.detach().float().requires_grad_(value.requires_grad)
        for key, value in exact.items()
    }
    loss = chunked_loss(*ours.values(), target_N, scale_N)
    # float32 against float64: products of D and of V terms of size about 1, so that the error is
    # some 2^-24 sqrt(V) of the largest terms; 1e-5 leaves a factor of ten.
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=0)
    if not any(wanted):
        assert not loss.requires_grad
        return
    (3 * reference).backward()
    (3 * loss).backward()
    for key, value in ours.items():
        if value.requires_grad:
            size = float(exact[key].grad.abs().max())
            torch.testing.assert_close(
                value.grad.double(), exact[key].grad, rtol=1e-4, atol=1e-5 * size
            )
        else:
            assert value.grad is None


@pytest.mark.parametrize("shift", [0, 1e2, 1e3, 1e4, -1e4])
def test_large_logits_cost_the_gradients_no_digits(monkeypatch, shift) -> None:
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", 10 * V)
    # Quarters: their products and sums are exact in float32, in whichever order.
    values = {key: (value * 4).round() / 4 for key, value in inputs(torch.float32).items()}
    values["bias_V"] += shift
    target_N, scale_N = torch.randint(V, (N,)), torch.rand(N)
    for value in values.values():
        value.requires_grad_()
    loss = chunked_loss(*values.values(), target_N, scale_N)
    logits_NV = F.linear(*values.values()).double()
    nats_N = F.cross_entropy(logits_NV, target_N, reduction="none")
    reference = (scale_N * nats_N).sum()
    # A dozen roundings by 2^-24 each; a log-sum-exp of 1e3 alone would round by 500 of them.
    torch.testing.assert_close(loss.double(), reference, rtol=12 * 2**-24, atol=0)
    found, exact = (torch.autograd.grad(out, [*values.values()]) for out in (loss, reference))
    for one, other in zip(found, exact, strict=True):
        assert (one - other).norm() <= 12 * 2**-24 * other.norm()


def test_the_gradients_are_those_of_finite_differences(monkeypatch) -> None:
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", 3 * 7)
    torch.manual_seed(0)
    values = [torch.randn(shape, dtype=torch.float64) for shape in ((5, 4), (7, 4), (7,))]
    target_N, scale_N = torch.randint(7, (5,)), torch.rand(5, dtype=torch.float64)
    # The function computes in float32 inside, so differences of 1e-2 are resolved to about 1e-4.
    assert torch.autograd.gradcheck(
        lambda *inputs: chunked_loss(*inputs, target_N, scale_N),
        [value.requires_grad_() for value in values],
        eps=1e-2,
        atol=1e-3,
        rtol=1e-2,
    )


def test_in_bfloat16_it_rounds_where_the_plain_formula_does(monkeypatch) -> None:
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", 10 * V)
    target_N, scale_N = torch.randint(V, (N,)), torch.rand(N)
    found = []
    for loss_of in (chunked_loss, plain):
        values = [value.requires_grad_() for value in inputs(torch.float32).values()]
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(*values, target_N, scale_N)
        loss.backward()
        found.append([loss, *(value.grad for value in values)])
    for ours, theirs in zip(*found, strict=True):
        # Both round logits and slopes to 8 bits once; sums of N or V such terms differ by less
        # than 2^-8 of their largest.
        atol = float(theirs.detach().abs().max()) * 2**-8
        torch.testing.assert_close(ours, theirs, rtol=2**-7, atol=atol)


@pytest.mark.parametrize(
    ("head", "compiled"), [*((head, False) for head in HEADS), ("its own", True)]
)
def test_every_kind_of_head_has_the_same_loss_and_gradients(monkeypatch, head, compiled) -> None:
    shape = sw.RackShape(stacks=1, blocks_per_stack=1, d_model=D, heads=2, **HEADS[head])
    rack = sw.Rack(shape, parse(ATTENTION, "mha", "attention", "kind"), V)
    torch.manual_seed(1)
    x_ND, target_N, weight_N = torch.randn(N, D), torch.randint(V, (N,)), torch.rand(N)
    found = []
    for logits in (N * V, N * V - 1):  # held whole, and not
        for module in (chunked, layers):
            monkeypatch.setattr(module, "LOGITS_AT_ONCE", logits)
        rack.zero_grad()
        x_ND = x_ND.detach().requires_grad_()
        loss = head_of(rack, compiled=compiled)(x_ND, target_N, weight_N, 2 * N)
        loss.backward()
        parts = {**dict(rack.head.named_parameters()), "table": rack.embedding.table, "x": x_ND}
        found.append({k: None if p.grad is None else p.grad.clone() for k, p in parts.items()})
        found[-1]["loss"] = loss.detach()
    whole, apart = found
    assert {k for k in whole if whole[k] is None} == {k for k in apart if apart[k] is None}
    for key in (key for key in whole if whole[key] is not None):
        size = float(whole[key].abs().max())
        torch.testing.assert_close(apart[key], whole[key], rtol=1e-4, atol=1e-5 * size)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that anything makes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.bytes = max(self.bytes, out.untyped_storage().nbytes())
        return out


def test_no_tensor_is_as_large_as_the_logits(monkeypatch) -> None:
    # 512 x 4096 logits; at most 2^16 of them at once.
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", 1 << 16)
    x_ND, weight_VD = torch.randn(512, 8, requires_grad=True), torch.randn(4096, 8)
    weight_VD.requires_grad_()
    target_N, scale_N = torch.zeros(512, dtype=torch.int64), torch.ones(512)
    with Largest() as largest:
        chunked_loss(x_ND, weight_VD, None, target_N, scale_N).backward()
    assert largest.bytes <= 4 * (1 << 16) * 2  # an int64 index or a float32 slope, no 8 MB
    with Largest() as largest:
        plain(x_ND, weight_VD, None, target_N, scale_N).backward()
    assert largest.bytes >= 4 * 512 * 4096  # the control: the plain formula holds them


@pytest.mark.parametrize("head", HEADS)
def test_a_head_in_training_holds_them_whole_only_while_they_are_few(monkeypatch, head) -> None:
    shape = sw.RackShape(stacks=1, blocks_per_stack=1, d_model=8, heads=2, **HEADS[head])
    rack = sw.Rack(shape, parse(ATTENTION, "mha", "attention", "kind"), 4096)
    target_N, weight_N = torch.randint(4096, (512,)), torch.ones(512)
    found = []
    for logits in (1 << 16, 512 * 4096 - 1, 512 * 4096):
        for module in (chunked, layers):
            monkeypatch.setattr(module, "LOGITS_AT_ONCE", logits)
        with Largest() as largest:
            x_ND = torch.randn(512, 8, requires_grad=True)
            head_of(rack, compiled=False)(x_ND, target_N, weight_N, 512).backward()
        found.append(largest.bytes)
    assert found[0] <= 4 * (1 << 16) * 2 < found[1] < 4 * 512 * 4096 == found[2]


def test_the_gradient_is_written_where_it_is_asked_to_be(monkeypatch) -> None:
    monkeypatch.setattr(chunked, "LOGITS_AT_ONCE", 10 * V)
    values = [value.requires_grad_() for value in inputs(torch.float32).values()]
    memory = torch.full((V, D), torch.nan)
    target_N, scale_N = torch.randint(V, (N,)), torch.rand(N)
    chunked_loss(*values, target_N, scale_N, lambda shape, dtype: memory).backward()
    assert torch.equal(memory, values[1].grad)
