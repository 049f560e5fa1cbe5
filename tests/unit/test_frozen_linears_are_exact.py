"""A frozen linear is the linear of its dequantised weight, forward and backward, bit for bit.

torch's own layer does the same arithmetic on the same numbers, so nothing may differ.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from stackwise.model.formats import FORMATS
from stackwise.model.freezing import freeze_linears
from stackwise.model.frozen import FrozenLinear

SHAPE = (72, 40)
everywhere = pytest.mark.parametrize("name", FORMATS)


def frozen(name, shape=SHAPE, bias=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight_OI = torch.randn(shape, generator=generator) * 0.02
    made = nn.Parameter(torch.randn(shape[0], generator=generator)) if bias else None
    return FrozenLinear(FORMATS[name], shape, FORMATS[name].pack(weight_OI), made)


def outcome(forward, x, bias):
    """Output, and gradients of input and bias, of a random direction."""
    x = x.detach().clone().requires_grad_()
    y = forward(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y.dtype)
    grads = torch.autograd.grad(y, [x] if bias is None else [x, bias], direction)
    return y.detach(), grads


@pytest.mark.parametrize("lead", [(6,), (2, 3), (2, 1, 3), (1,), (0,), ()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@everywhere
def test_forward_and_backward_are_those_of_the_dequantised_weight(name, bias, dtype, lead):
    layer = frozen(name, bias=bias)
    weight_OI = FORMATS[name].unpack(layer.tensors(), SHAPE, dtype)
    x = torch.randn(*lead, SHAPE[1], dtype=dtype)

    def plain(x):
        return F.linear(x, weight_OI, None if layer.bias is None else layer.bias.to(dtype))

    found, wanted = outcome(layer, x, layer.bias), outcome(plain, x, layer.bias)
    assert torch.equal(found[0], wanted[0])
    for one, other in zip(found[1], wanted[1], strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_the_gradient_of_a_transposed_input_is_the_same_but_for_rounding():
    shape = (512, 256)
    layer = frozen("bf16", shape, bias=False)
    weight_OI = layer.weight
    x = torch.randn(shape[1], 6).t()

    def gradients(direction):
        ours, theirs = (x.detach().requires_grad_() for _ in range(2))  # a clone would be row-major
        y, wanted = layer(ours), F.linear(theirs, weight_OI)
        assert torch.equal(y, wanted)
        return [torch.autograd.grad(*pair, direction)[0] for pair in ((y, ours), (wanted, theirs))]

    direction = torch.randn(6, shape[0])
    found, wanted = gradients(direction)
    # Each sums O products of the size of its largest; float32 rounds each partial sum by 2^-24.
    most = float(direction.abs().max() * weight_OI.abs().max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=2 * shape[0] * most * 2**-24)


@everywhere
def test_under_autocast_it_computes_as_a_linear_does(name):
    layer = frozen(name)
    twin = nn.Linear(SHAPE[1], SHAPE[0])
    with torch.no_grad():
        twin.weight.copy_(layer.weight)
        twin.bias.copy_(layer.bias)
    for x in (torch.randn(3, 40), torch.randn(3, 40).bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            # The twin rounds float32 to bfloat16, we make bfloat16: the same single rounding.
            found, wanted = outcome(layer, x, layer.bias), outcome(twin, x, twin.bias)
            assert layer.weight.dtype == torch.bfloat16
        assert found[0].dtype == torch.bfloat16
        assert torch.equal(found[0], wanted[0])
        assert all(torch.equal(a, b) for a, b in zip(found[1], wanted[1], strict=True))
    assert layer.weight.dtype == torch.float32


@everywhere
def test_nothing_of_the_weight_is_kept_for_backward(name):
    layer, kept = frozen(name), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t):
        y = layer(torch.randn(5, 40, requires_grad=True))
    assert kept == []
    assert not any(isinstance(value, torch.Tensor) for value in vars(y.grad_fn).values())


def test_an_input_without_gradient_costs_no_second_reading():
    layer = frozen("bf16")
    tensors, asked = dict(layer.tensors()), []
    layer.lend(lambda: (asked.append(1), tensors)[1])
    layer(torch.randn(2, 40)).sum().backward()
    assert layer.bias.grad is not None and len(asked) == 1
    layer(torch.randn(2, 40, requires_grad=True)).sum().backward()
    assert len(asked) == 3
    layer.bias.requires_grad_(False)
    assert not layer(torch.randn(2, 40)).requires_grad


@everywhere
def test_checkpointing_changes_nothing(name):
    blocks = nn.Sequential(frozen(name, (64, 40)), nn.GELU(), frozen(name, (40, 64), seed=1))
    x = torch.randn(3, 40)
    found = outcome(lambda x: checkpoint(blocks, x, use_reentrant=False), x, blocks[0].bias)
    wanted = outcome(blocks, x, blocks[0].bias)
    assert torch.equal(found[0], wanted[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], wanted[1], strict=True))


@everywhere
def test_a_copy_and_a_state_dict_hold_the_same_bytes(name):
    layer = frozen(name)
    twin = copy.deepcopy(layer)
    assert twin.format is layer.format
    other = frozen(name, seed=5)
    assert list(other.state_dict()) == ["bias", *FORMATS[name].layout(SHAPE)]
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, 40)
    assert torch.equal(twin(x), layer(x)) and torch.equal(other(x), layer(x))
    apart = {tensor.data_ptr() for tensor in layer.tensors().values()}
    assert apart.isdisjoint(tensor.data_ptr() for tensor in twin.tensors().values())


@everywhere
def test_what_is_kept_are_plain_tensors(name):
    """Of no class of another library: files, copies and tracers take them as they are."""
    layer = frozen(name)
    assert {type(tensor) for tensor in layer.state_dict().values()} == {torch.Tensor}
    assert {type(each) for each in (*layer.tensors().values(), layer.weight)} == {torch.Tensor}


@everywhere
def test_a_dtype_changes_what_is_made_and_not_what_is_kept(name):
    layer, untouched = frozen(name), frozen(name)
    layer.to(torch.bfloat16).half().to("cpu").double()
    assert layer.weight.dtype == layer.bias.dtype == torch.float64
    for key, tensor in untouched.tensors().items():
        assert layer.tensors()[key].dtype == tensor.dtype
        assert torch.equal(layer.tensors()[key].float(), tensor.float())


@everywhere
def test_on_meta_there_are_shapes_and_no_bytes(name):
    layer = frozen(name).to("meta")
    x = torch.empty(3, 40, device="meta", requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.device.type == x.grad.device.type == "meta"
    made = FORMATS[name].pack(torch.empty(SHAPE, device="meta"))
    assert FrozenLinear(FORMATS[name], SHAPE, made)(x).shape == (3, 72)


@everywhere
def test_fake_tensors_go_through(name):
    """As the planner traces it: made, frozen, forward, backward."""
    with FakeTensorMode():
        blocks = nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, 40))
        freeze_linears(blocks, name)
        x = torch.randn(3, 40, requires_grad=True)
        blocks(x).sum().backward()
        assert isinstance(x.grad, FakeTensor) and x.grad.shape == (3, 40)
        kept = blocks[0].tensors().values()
        assert sum(t.untyped_storage().nbytes() for t in kept) == FORMATS[name].bytes_of((64, 40))


@pytest.fixture
def compiler():
    """torch compiles one function so many times and no more: forget the other formats'."""
    torch._dynamo.reset()


@everywhere
def test_compiled_it_is_the_same(name, compiler):
    blocks = nn.Sequential(frozen(name, (64, 40)), nn.Identity(), frozen(name, (40, 64), seed=1))
    compiled = torch.compile(blocks, backend="aot_eager")
    x = torch.randn(3, 40)
    found, wanted = outcome(compiled, x, blocks[0].bias), outcome(blocks, x, blocks[0].bias)
    assert torch.equal(found[0], wanted[0])
    assert all(torch.equal(a, b) for a, b in zip(found[1], wanted[1], strict=True))
    with torch.no_grad():
        assert torch.equal(compiled(x), blocks(x))


def test_compiled_without_gradient_it_is_one_graph(compiler):
    blocks = nn.Sequential(frozen("nf4", (64, 40)), frozen("nf4", (40, 64), seed=1))
    whole = torch.compile(blocks, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(whole(torch.ones(3, 40)), blocks(torch.ones(3, 40)))


def test_there_is_no_second_derivative_to_get_wrong():
    x = torch.randn(2, 40, requires_grad=True)
    (grad,) = torch.autograd.grad(frozen("nf4")(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
