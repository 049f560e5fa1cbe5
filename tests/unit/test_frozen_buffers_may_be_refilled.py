"""A buffer that holds one layer's bytes after another's must not spoil gradients.

The failing control is an autograd function that keeps the packed tensor from forward to backward,
as that of bitsandbytes does: its forward is exact, its loss looks healthy, and the gradient is that
of another layer's weight. Both arms go through the same gate, which has to tell them apart.
"""

import warnings

import bitsandbytes as bnb
import bitsandbytes.functional as reference
import pytest
import torch
import torch.nn.functional as F

from stackwise.model.formats import FORMATS
from stackwise.model.frozen import FrozenLinear

WIDTH = 128
SHAPE = (WIDTH, WIDTH)


class Slot:
    """One buffer for all layers, refilled for whoever asks."""

    def __init__(self, name, packed):
        self.packed, self.buffer = packed, FORMATS[name].blank(SHAPE)
        self.asked = []

    def ask(self, tag):
        self.asked.append(tag)
        for key, tensor in self.packed[tag].items():
            self.buffer[key].copy_(tensor)
        return self.buffer


class Keeps(torch.autograd.Function):
    """The fault, for any format: packed tensors stay on the context."""

    @staticmethod
    def forward(ctx, x, tensors, name):
        ctx.tensors, ctx.name = tensors, name
        return F.linear(x, FORMATS[name].unpack(tensors, SHAPE, x.dtype))

    @staticmethod
    def backward(ctx, grad):
        return grad @ FORMATS[ctx.name].unpack(ctx.tensors, SHAPE, grad.dtype), None, None


def lent(slot, name):
    layers = [FrozenLinear(FORMATS[name], SHAPE, FORMATS[name].blank(SHAPE)) for _ in slot.packed]
    for tag, layer in enumerate(layers):
        layer.lend(lambda tag=tag: slot.ask(tag))
    return layers


def keeping(slot, name):
    return [lambda x, tag=tag: Keeps.apply(x, slot.ask(tag), name) for tag in range(2)]


def of_bitsandbytes(slot, name):
    def layer(x, tag):
        held = slot.ask(tag)
        state = reference.QuantState(
            held["scale"], SHAPE, reference.get_4bit_type(name, "cpu"), 64, name, x.dtype
        )
        return bnb.matmul_4bit(x, held[name].view(-1, 1), state)

    return [lambda x, tag=tag: layer(x, tag) for tag in range(2)]


def errors(name, dtype, arm):
    """Relative errors of output and gradient of two layers in a row, against their weights."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, *SHAPE, generator=generator) * 0.02
    x = torch.randn(8, WIDTH, generator=generator).to(dtype)
    direction = torch.randn(8, WIDTH, generator=generator).to(dtype)
    packed = [FORMATS[name].pack(weight_OI) for weight_OI in weights]
    slot = Slot(name, packed)

    def run(layers):
        inner = x.clone().requires_grad_()
        y = layers[1](layers[0](inner))
        return y.detach(), torch.autograd.grad(y, inner, direction)[0]

    exact = [FORMATS[name].unpack(each, SHAPE, dtype) for each in packed]
    wanted = run([lambda x, w=w: F.linear(x, w) for w in exact])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run(arm(slot, name))
    return slot, [float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FORMATS)
def test_a_lent_layer_is_exact_though_its_buffer_was_refilled(name, dtype):
    slot, (forward, backward) = errors(name, dtype, lent)
    assert (forward, backward) == (0, 0)
    assert slot.asked == [0, 1, 1, 0]  # forward, then backward in reverse


@pytest.mark.parametrize(
    ("name", "arm"),
    [*((name, keeping) for name in FORMATS), ("nf4", of_bitsandbytes), ("fp4", of_bitsandbytes)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gate_finds_an_arm_that_keeps_the_buffer(name, arm, dtype):
    """The first layer's gradient goes through the second's weight: two independent directions.

    |g (B - A)| / |g A| is then sqrt 2, give or take 1/sqrt(8 x 128) of sampling, here 5 times that.
    """
    slot, (forward, backward) = errors(name, dtype, arm)
    assert forward == 0
    assert backward == pytest.approx(2**0.5, abs=5 / (8 * WIDTH) ** 0.5)
    assert slot.asked == [0, 1]


def test_a_loan_drops_the_own_bytes_and_owning_ends_it():
    kept = FORMATS["nf4"].pack(torch.randn(SHAPE))
    layer = FrozenLinear(FORMATS["nf4"], SHAPE, kept)
    x = torch.randn(2, WIDTH)
    before = layer(x)
    layer.lend(lambda: kept)
    assert layer.is_lent and not layer.state_dict()
    assert torch.equal(layer(x), before)
    layer.own(kept)
    assert not layer.is_lent and list(layer.state_dict()) == ["nf4", "scale"]
    assert torch.equal(layer(x), before)


def test_a_weight_that_was_read_stays_when_the_buffer_is_refilled():
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16), ("nf4", torch.float32)):
        packed = [FORMATS[name].pack(torch.randn(SHAPE)) for _ in range(2)]
        slot = Slot(name, packed)
        layer = lent(slot, name)[0].to(dtype)
        weight_OI = layer.weight
        slot.ask(1)
        assert torch.equal(weight_OI, FORMATS[name].unpack(packed[0], SHAPE, dtype))


def test_what_is_lent_is_compared_with_what_was_promised():
    layer = FrozenLinear(FORMATS["fp8"], SHAPE, FORMATS["fp8"].pack(torch.randn(SHAPE)))
    layer.lend(lambda: FORMATS["int8"].pack(torch.randn(SHAPE)))
    with pytest.raises(ValueError, match="int8 int8") as caught:
        layer(torch.randn(2, WIDTH))
    assert str(caught.value) == (
        "int8 int8[128, 128], scale float32[128] is no fp8 weight of shape (128, 128), which is "
        "fp8 float8_e4m3fn[128, 128], scale float32[128]; make it with FORMATS['fp8'].pack"
    )
