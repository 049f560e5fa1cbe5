"""Queries and keys in one operation, with its own backward, against the plain composition.

The oracle is RMSNorm as torch has it, then a rotation of each pair by a 2 x 2 matrix, place by
place, differentiated by autograd in float64.
"""

import math

import pytest
import torch

from stackwise.model.attention.heads import cut, scored
from stackwise.model.attention.rope import Rotary, inverse_frequencies, turn_, turned
from stackwise.model.norm import RMSNorm
from stackwise.model.shape import RackShape, attention_shape

BATCH, LENGTH, WIDTH = 2, 5, 6
EPS = 1e-5
CASES = [
    pytest.param(heads, norm, rope, id=f"{heads}{', norm' * norm}{', rope' * rope}")
    for heads in ("mha", "gqa")
    for norm in (True, False)
    for rope in (True, False)
]


def turned_slowly(x, turns, back=False):
    """Each pair by its own matrix."""
    places = []
    for t in range(x.shape[-2]):
        pairs = []
        for i in range(x.shape[-1] // 2):
            cos, sin = turns[t, i]
            sin = -sin if back else sin
            matrix = torch.stack((torch.stack((cos, -sin)), torch.stack((sin, cos))))
            pairs.append(x[..., t, 2 * i : 2 * i + 2] @ matrix.T)
        places.append(torch.cat(pairs, dim=-1))
    return torch.stack(places, dim=-2)


def composed(x_BTF, shape, q_norm, k_norm, rotary):
    """The plain composition: cut, norm, rotation."""
    q, k, v = cut(x_BTF, shape)
    if q_norm is not None:
        q = torch.nn.functional.rms_norm(q, (WIDTH,), q_norm.weight, EPS)
        k = torch.nn.functional.rms_norm(k, (WIDTH,), k_norm.weight, EPS)
    if rotary is not None:
        turns = rotary.turns(LENGTH, x_BTF)
        q, k = turned_slowly(q, turns), turned_slowly(k, turns)
    return q, k, v


def made(heads, norm, rope, dtype=torch.float64):
    """What both are called with, weights away from one."""
    torch.manual_seed(0)
    kv_heads = 4 if heads == "mha" else 2
    rack = RackShape(d_model=24, heads=4, kv_heads=kv_heads, head_dim=WIDTH, qk_norm=norm)
    shape = attention_shape(rack, 0)
    norms = [RMSNorm(WIDTH, EPS).to(dtype) if norm else None for _ in range(2)]
    for module in norms:
        if module is not None:
            torch.nn.init.normal_(module.weight)
    x_BTF = torch.randn(BATCH, LENGTH, (4 + 2 * kv_heads) * WIDTH, dtype=dtype)
    return x_BTF.requires_grad_(), shape, *norms, Rotary(WIDTH, 100.0, None) if rope else None


def values_and_gradients(function, arguments, grads=None):
    """Queries, keys, values, and the gradients of the product and of the norms' weights."""
    x_BTF, _, *norms, _ = arguments
    weights = [module.weight for module in norms if module is not None]
    parts = function(*arguments)
    if grads is None:
        generator = torch.Generator().manual_seed(1)
        grads = [torch.randn(p.shape, dtype=torch.float64, generator=generator) for p in parts]
    wanted = [tensor for tensor in (x_BTF, *weights) if tensor.requires_grad]
    given = [grad.to(part.dtype) for grad, part in zip(grads, parts, strict=True)]
    return [*parts, *torch.autograd.grad(parts, wanted, given)]


@pytest.mark.parametrize(("heads", "norm", "rope"), CASES)
def test_values_and_gradients_are_those_of_the_composition(heads, norm, rope):
    arguments = made(heads, norm, rope)
    ours = values_and_gradients(scored, arguments)
    theirs = values_and_gradients(composed, arguments)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-12)  # sums of up to 40 in float64


@pytest.mark.parametrize(("heads", "norm", "rope"), CASES)
def test_the_gradient_is_that_of_finite_differences(heads, norm, rope):
    arguments = made(heads, norm, rope)
    weights = [module.weight for module in arguments[2:4] if module is not None]

    def run(*varied):  # gradcheck moves the tensors themselves
        return tuple(scored(*arguments))

    assert torch.autograd.gradcheck(run, (arguments[0], *weights), fast_mode=True)


@pytest.mark.parametrize("rope", [True, False])
def test_frozen_norms_get_no_gradient_and_pass_it_on(rope):
    arguments = made("gqa", True, rope)
    whole = values_and_gradients(scored, arguments)
    for module in arguments[2:4]:
        module.requires_grad_(False)
    frozen = values_and_gradients(scored, arguments)
    assert len(frozen) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(frozen, whole, strict=False))
    sum(part.sum() for part in scored(*arguments)).backward()
    assert all(module.weight.grad is None for module in arguments[2:4])


def test_one_norm_alone_can_be_frozen():
    arguments = made("mha", True, True)
    whole = values_and_gradients(scored, arguments)
    arguments[2].requires_grad_(False)
    *_, k_weight = values_and_gradients(scored, arguments)
    assert torch.equal(k_weight, whole[-1])


@pytest.mark.parametrize(("heads", "norm", "rope"), CASES)
def test_bfloat16_rounds_and_does_no_more(heads, norm, rope):
    """As under autocast: the product is bfloat16, the norms' weights float32."""
    x_BTF, shape, *rest = made(heads, norm, rope, torch.float32)
    low_BTF = x_BTF.detach().bfloat16()
    parts = scored(low_BTF.clone().requires_grad_(), shape, *rest)
    # Both are handed the same gradient in bfloat16, as attention gives it.
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(p.shape, generator=generator).bfloat16().double() for p in parts]
    arguments = (low_BTF.clone().requires_grad_(), shape, *rest)
    ours = values_and_gradients(scored, arguments, grads)
    for module in rest[:2]:
        if module is not None:
            module.double()
    wide = (low_BTF.double().requires_grad_(), shape, *rest)
    theirs = values_and_gradients(composed, wide, grads)
    assert ours[2].dtype == ours[3].dtype == torch.bfloat16
    for our, their in zip(ours, theirs, strict=True):
        # Rounded to 8 bits at most three times: in the rotation, of values, of the gradient.
        assert (our.double() - their).norm() <= 3 * 2**-9 * their.norm()


@pytest.mark.parametrize(("heads", "norm", "rope"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_compiled_it_is_the_same(heads, norm, rope, dtype):
    """Traced, torch's own operations take the place of ours; nothing is generated, for speed."""
    torch.compiler.reset()
    arguments = made(heads, norm, rope, dtype)
    eager = values_and_gradients(scored, arguments)
    compiled = torch.compile(scored, backend="aot_eager", fullgraph=True)
    close = 1e-12 if dtype == torch.float64 else 1e-5  # 40 terms of order one, rounded at 6e-8
    for one, other in zip(eager, values_and_gradients(compiled, arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=close)


def offset_by_one(x):
    """The same numbers at an odd place of their storage."""
    return torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape)


def odd_rows(x):
    """The same numbers in rows that are one longer, so that strides are odd."""
    return torch.nn.functional.pad(x, (0, 1))[..., :-1]


@pytest.mark.parametrize("layout", [torch.clone, offset_by_one, odd_rows])
@pytest.mark.parametrize("back", [False, True])
def test_the_rotation_is_right_in_every_layout(layout, back):
    x = layout(torch.randn(2, 3, LENGTH, WIDTH, dtype=torch.float64))
    before = x.clone()
    turns = Rotary(WIDTH, 100.0, None).turns(LENGTH, x)
    want = turned_slowly(x, turns, back)
    torch.testing.assert_close(turned(x, turns, back=back), want, rtol=0, atol=1e-15)
    assert torch.equal(x, before)
    turn_(x, turns, back=back)
    torch.testing.assert_close(x, want, rtol=0, atol=1e-15)


def test_turning_back_undoes_it():
    x = torch.randn(2, 3, LENGTH, WIDTH, dtype=torch.float64)
    turns = Rotary(WIDTH, 100.0, None).turns(LENGTH, x)
    # Cosines and sines come from float32: their squares add up to one within 2^-23.
    there_and_back = turned(turned(x, turns), turns, back=True)
    torch.testing.assert_close(there_and_back, x, rtol=2**-22, atol=1e-15)


def test_angles_are_places_times_frequencies():
    turns = Rotary(WIDTH, 100.0, None).turns(LENGTH, torch.zeros(()))
    for t in range(LENGTH):
        for i in range(WIDTH // 2):
            angle = t * 100.0 ** (-2 * i / WIDTH)
            want = torch.tensor([math.cos(angle), math.sin(angle)])
            torch.testing.assert_close(turns[t, i], want, rtol=0, atol=1e-6)
    assert inverse_frequencies(WIDTH, 100.0)[0] == 1
