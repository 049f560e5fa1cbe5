"""Our RMSNorm against torch's: the same numbers, fewer of them kept."""

import torch

from stackwise.model.norm import RMSNorm


def both(dtype, shape=(5, 7, 24), weight_needs_grad=True):
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, 1e-5).to(dtype), torch.nn.RMSNorm(24, 1e-5).to(dtype)
    with torch.no_grad():
        theirs.weight.normal_()
        ours.weight.copy_(theirs.weight)
    found = []
    for norm in (ours, theirs):
        norm.weight.requires_grad_(weight_needs_grad)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(shape, dtype=dtype, generator=generator).requires_grad_()
        y = norm(x)
        y.backward(torch.randn(shape, dtype=dtype, generator=generator))
        found.append([y, x.grad, norm.weight.grad])
    return found


def test_values_and_gradients_are_those_of_torch():
    for ours, theirs in zip(*both(torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)  # sums of 35 in float64
    ours, theirs = both(torch.float64, weight_needs_grad=False)
    assert ours[2] is theirs[2] is None
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=1e-13)


def test_no_rows_are_no_problem():
    for ours, theirs in zip(*both(torch.float32, shape=(0, 24)), strict=True):
        assert torch.equal(ours, theirs)


def test_it_keeps_its_input_and_one_number_per_row():
    norm = RMSNorm(24, 1e-5)
    x = torch.randn(5, 7, 24, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm(x)
    assert sorted(t.numel() for t in kept) == [24, 35, 35 * 24]


def test_lower_precision_is_normalised_in_that_of_the_weights():
    x = torch.randn(3, 24, dtype=torch.bfloat16)
    assert RMSNorm(24, 1e-5)(x).dtype == torch.float32
