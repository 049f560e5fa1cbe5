"""Matrices in bfloat16, vectors and the residual stream in float32, and no copy of a weight.

Whoever calls a rack of such matrices gets what training computes, which enters autocast.
"""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.choice import parse
from stackwise.config import Optim
from stackwise.memory.heap import taken
from stackwise.model.attention import ATTENTION
from stackwise.training.average import Average
from stackwise.training.norms import global_norms
from stackwise.training.optim import SLICE, Optimizer

V = 71


def rack_of(attention: str = "mha", dtype=torch.bfloat16, **shape) -> sw.Rack:
    made = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=32, heads=4, **shape)
    return sw.Rack(made, parse(ATTENTION, attention, "attention", "kind"), V, dtype=dtype)


def test_matrices_are_bfloat16_and_vectors_float32() -> None:
    rack = rack_of(bias=True, tied=False, head_bias=True, positions="learned", max_positions=16)
    for parameter in rack.parameters():
        assert parameter.dtype == (torch.bfloat16 if parameter.ndim >= 2 else torch.float32)


@pytest.mark.parametrize("attention", ATTENTION)
def test_the_residual_stream_is_float32_between_blocks(attention) -> None:
    rack = rack_of(attention)
    ids_BT = torch.randint(V, (2, 8))
    with torch.autocast("cpu", torch.bfloat16):
        assert {x_BTD.dtype for x_BTD in rack.exits(ids_BT)} == {torch.float32}
        assert rack(ids_BT).dtype == torch.bfloat16


SHAPES = {
    "plain": {},
    "Llama's": {"tied": False, "qk_norm": True},
    "BERT's": {
        "norm": "layernorm",
        "norm_place": "post",
        "bias": True,
        "ffn": "gelu",
        "positions": "learned",
        "max_positions": 16,
        "embed_norm": True,
        "head_transform": True,
        "head_bias": True,
    },
}
everywhere = pytest.mark.parametrize("device", ["cpu", "cuda"])


def on(device: str, rack: sw.Rack) -> sw.Rack:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA card here")
    return rack.to(device)


@everywhere
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attention", ATTENTION)
def test_every_call_gives_what_training_computes(attention, causal, shape, device) -> None:
    rack = on(device, rack_of(attention, **SHAPES[shape]))
    ids_BT = torch.randint(V, (2, 8), device=device)

    def found() -> list[torch.Tensor]:
        hidden_BTD = rack.hidden(ids_BT, causal=causal)
        logits = [rack(ids_BT, causal=causal), rack.logits(hidden_BTD[:, -1])]
        return [hidden_BTD, *logits, *rack.exits(ids_BT, causal=causal)]

    alone = found()
    with torch.autocast(device, torch.bfloat16):
        trained = found()
    assert [x.dtype for x in alone] == [x.dtype for x in trained]
    assert all(torch.equal(one, other) for one, other in zip(alone, trained, strict=True))


def test_gradients_of_a_call_are_those_of_training() -> None:
    rack, ids_BT, found = rack_of(), torch.randint(V, (2, 8)), []
    for within in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=within):
            logits_BTV = rack(ids_BT)
        rack.zero_grad()
        logits_BTV.float().logsumexp(-1).sum().backward()
        found.append([p.grad.clone() for p in rack.parameters() if p.grad is not None])
    assert found[0] and all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_only_what_the_rack_computes_is_under_autocast() -> None:
    rack, ids_BT = rack_of(), torch.randint(V, (2, 8))
    for _ in rack.exits(ids_BT):
        assert not torch.is_autocast_enabled("cpu")
    rack(ids_BT)
    assert not torch.is_autocast_enabled("cpu")


def test_a_float32_rack_is_left_to_its_caller() -> None:
    ids_BT = torch.randint(V, (2, 8))
    assert rack_of(dtype=torch.float32)(ids_BT).dtype == torch.float32
    assert rack_of().float()(ids_BT).dtype == torch.float32
    rack_of().double()(ids_BT)  # which autocast does not know
    assert rack_of(dtype=torch.float32).bfloat16()(ids_BT).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", SHAPES)
def test_it_can_be_compiled(shape) -> None:
    rack, ids_BT = rack_of(**SHAPES[shape]), torch.randint(V, (2, 8))
    compiled = torch.compile(rack, backend="eager", fullgraph=True)
    with torch.no_grad():
        # Compiled norms sum in another order; 8 bits of logits of size 1.
        torch.testing.assert_close(compiled(ids_BT), rack(ids_BT), rtol=2**-6, atol=2**-6)


@pytest.mark.parametrize("attention", ATTENTION)
def test_autocast_copies_no_weight(attention) -> None:
    """Every operation's results are watched: none has a weight's shape, unless weights are cast."""

    def copies(rack: sw.Rack) -> int:
        shapes, found = {p.shape for p in rack.parameters() if p.ndim >= 2}, 0

        class Watch(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                nonlocal found
                if func is torch.ops.aten._to_copy.default:
                    found += args[0].shape in shapes
                return func(*args, **(kwargs or {}))

        with Watch(), torch.autocast("cpu", torch.bfloat16):
            rack(torch.randint(V, (2, 9)))
        return found

    sizes = {"bias": False, "tied": False}
    assert copies(rack_of(attention, torch.float32, **sizes)) > 0  # the control: they are cast
    assert copies(rack_of(attention, **sizes)) == 0


def test_the_average_is_kept_in_float32_and_shown_rounded() -> None:
    weight = torch.nn.Parameter(torch.ones(3, 5, dtype=torch.bfloat16))
    named = {("s0", "weight"): weight}
    average, expected = Average(named, 0.9, Optimizer(Optim(), named)), 1.0
    raw = 1.0
    for step in range(40):
        raw = float(torch.tensor(1 + step / 7).bfloat16())
        weight.data.fill_(raw)
        average.update()
        keep = min(0.9, (1 + step) / (10 + step))
        expected = keep * expected + (1 - keep) * raw
    value = average.values["s0", "weight"]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, torch.full((3, 5), expected))
    shown = value.bfloat16()
    with average.applied():
        assert torch.equal(weight.detach(), shown)
    assert weight.unique().tolist() == [raw]
    average.adopt(["s0"])
    assert torch.equal(weight.detach(), value.bfloat16())


def test_looking_through_the_average_changes_no_bit_of_it_or_of_the_weights() -> None:
    weight = torch.nn.Parameter(torch.randn(700, 900).bfloat16())
    named = {("s0", "weight"): weight}
    average = Average(named, 0.9, Optimizer(Optim(), named))
    value = average.values["s0", "weight"]
    bits = torch.randint(-(2**31), 2**31, value.shape, dtype=torch.int64).to(torch.int32)
    value.copy_(bits.view(torch.float32))  # any numbers, infinite ones and none too
    before, kept = weight.detach().clone(), value.view(torch.int32).clone()
    with average.applied():
        assert weight.data_ptr() and not torch.equal(weight.detach(), before)
    assert torch.equal(weight.detach(), before)
    assert torch.equal(average.values["s0", "weight"].view(torch.int32), kept)


def test_what_freezes_at_its_average_has_the_averages_master() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 9).bfloat16())
    named = {("s0", "weight"): weight}
    optimizer = Optimizer(Optim(lr=1e-4), named)
    average = Average(named, 0.9, optimizer)
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
        average.update()
    wanted, raw_n = average.values["s0", "weight"].clone(), optimizer.exact_n(weight)
    average.adopt(["s0"])
    assert torch.equal(optimizer.exact_n(weight), wanted.view(-1))
    assert not torch.equal(raw_n, wanted.view(-1))
    # The control: a plain copy leaves the lower halves of the raw weights under the average.
    optimizer.put(weight, raw_n.view_as(weight))
    weight.data.copy_(wanted)
    assert not torch.equal(optimizer.exact_n(weight), wanted.view(-1))


def test_the_average_is_that_of_float32_weights_bit_for_bit() -> None:
    start, averages = torch.randn(700, 900).bfloat16(), {}  # two slices and a part of one
    for dtype in (torch.bfloat16, torch.float32):
        torch.manual_seed(0)
        weight = torch.nn.Parameter(start.to(dtype, copy=True))
        named = {("s0", "weight"): weight}
        optimizer = Optimizer(Optim(lr=1e-5), named)
        average = Average(named, 0.9, optimizer)
        for _ in range(3):
            weight.grad = torch.randn(weight.shape).bfloat16().to(dtype)
            optimizer.step()
            average.update()
        averages[dtype] = average.values["s0", "weight"]
        assert not torch.equal(averages[dtype], start.float())
    assert torch.equal(averages[torch.bfloat16], averages[torch.float32])


@pytest.mark.parametrize(("rows", "close"), [(64, 1e-6), (8000, 1e-5)])
def test_norms_of_bfloat16_gradients_are_summed_in_float32(rows: int, close: float) -> None:
    """Of a large one without a float32 copy of it, which would be four slices' bytes.

    torch's own norm of that copy is off by 3e-5.
    """
    torch.manual_seed(0)
    low = torch.nn.Parameter(torch.zeros(rows, 129, dtype=torch.bfloat16))
    full = torch.nn.Parameter(torch.zeros(7))
    low.grad, full.grad = torch.randn(rows, 129).bfloat16(), torch.randn(7)
    with taken() as found:
        norm, blocks = global_norms({("s0", "blocks.0.w"): low, ("head", "norm.weight"): full})
    assert found.most is not None and found.most < 2.5 * 4 * SLICE
    exact = low.grad.double().norm().item()
    assert blocks["s0.0"] == pytest.approx(exact, rel=close)
    assert norm == pytest.approx(
        (exact**2 + full.grad.double().norm().item() ** 2) ** 0.5, rel=close
    )
