"""The same gates on a CUDA card: codes are bitsandbytes' own there, products are exact."""

import bitsandbytes.functional as reference
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears
from stackwise.model.frozen import FrozenLinear

pytestmark = pytest.mark.card

SHAPES = [(96, 64), (64, 96), (33, 130)]
everywhere = pytest.mark.parametrize("name", FORMATS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@everywhere
def test_forward_and_backward_are_those_of_the_dequantised_weight(name, dtype, shape):
    weight_OI = torch.randn(shape, device="cuda") * 0.02
    layer = FrozenLinear(FORMATS[name], shape, FORMATS[name].pack(weight_OI))
    plain_OI = layer.dequantised(dtype)
    found, wanted = (
        torch.randn(5, shape[1], device="cuda", dtype=dtype).requires_grad_() for _ in range(2)
    )
    wanted.data.copy_(found.data)
    y, exact = layer(found), F.linear(wanted, plain_OI)
    direction = torch.randn_like(y)
    y.backward(direction)
    exact.backward(direction)
    assert torch.equal(y, exact) and torch.equal(found.grad, wanted.grad)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_codes_are_those_of_the_functional(name, shape):
    weight_OI = torch.randn(shape, device="cuda") * 0.02
    code, state = reference.quantize_4bit(weight_OI, blocksize=64, quant_type=name)
    packed = FORMATS[name].pack(weight_OI)
    assert torch.equal(packed["scale"], state.absmax)
    assert torch.equal(packed[name].view(-1)[: code.numel()], code.view(-1))


@everywhere
def test_what_was_frozen_on_the_cpu_is_the_same_weight_on_the_card(name):
    module = nn.Sequential(nn.Linear(64, 96))
    freeze_linears(module, name)
    before_OI = module[0].weight
    module.cuda()
    assert all(tensor.is_cuda for tensor in module[0].tensors().values())
    # One product in float32, whose last bit a kernel may round otherwise.
    assert torch.allclose(module[0].weight.cpu(), before_OI, rtol=2**-22, atol=0)
