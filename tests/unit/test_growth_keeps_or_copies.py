"""A grown stack changes nothing, or is a copy, or starts as it would have anyway."""

import pytest
import torch

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.init import begin_as, grow
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape
from stackwise.stage import NewStack

IDS_BT = torch.arange(24).view(2, 12) % 13


def rack_of(stacks=None, kind="mha", seed=0, **changes):
    shape = RackShape(stacks=3, blocks_per_stack=2, d_model=32, heads=4, d_ff=32, **changes)
    attention = parse(ATTENTION, kind, "attention", "kind")
    return Rack(shape, attention, vocab=13, stacks=stacks, seed=seed)


@pytest.mark.parametrize("kind", ["mha", "mla", "kernel", "linear"])
@pytest.mark.parametrize("changes", [{}, {"bias": True, "ffn": "gelu", "residual_gain": 0.5}])
@pytest.mark.parametrize("new", ["s0", "s1", "s2"])
def test_zero_output_changes_no_logit_and_learns_at_once(kind, changes, new):
    held = [stack for stack in ("s0", "s1", "s2") if stack != new]
    rack = rack_of(held, kind, **changes)
    before_BTV = rack(IDS_BT).detach()
    stack = rack.add(new)
    with torch.no_grad():
        for parameter in stack.parameters():  # biases too, as in a stack that has trained
            parameter.add_(0.1 * torch.ones_like(parameter))
    grow(stack, "zero_output")
    after_BTV = rack(IDS_BT)
    assert (after_BTV - before_BTV).abs().max() == 0
    after_BTV.square().sum().backward()
    for block in stack.blocks:
        assert block.attention.out.weight.grad.abs().max() > 0
        assert block.ffn.down.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["mha", "mla", "kernel"])
def test_a_copy_equals_its_source_and_is_its_own(kind):
    rack = rack_of(["s0"], kind)
    stack = rack.add("s1")
    grow(stack, "copy", rack.stacks["s0"])
    source = rack.stacks["s0"].state_dict()
    for name, tensor in stack.state_dict().items():
        assert torch.equal(tensor, source[name])
        assert tensor.data_ptr() != source[name].data_ptr()


def test_a_copy_needs_a_source():
    with pytest.raises(ValueError, match="init='copy' needs the stack to copy from; give source"):
        grow(rack_of().stacks["s0"], "copy")


def test_a_start_does_not_depend_on_which_stacks_exist():
    whole, alone = rack_of(), rack_of(["s1"])
    late = rack_of([])
    torch.manual_seed(99)
    late.add("s1")
    for rack in (alone, late):
        for name, tensor in rack.stacks["s1"].state_dict().items():
            assert torch.equal(tensor, whole.stacks["s1"].state_dict()[name])
    other = rack_of(seed=1).stacks["s1"].blocks[0].ffn.up.weight
    assert not torch.equal(other, whole.stacks["s1"].blocks[0].ffn.up.weight)
    assert not torch.equal(other, whole.stacks["s0"].blocks[0].ffn.up.weight)


def test_stacks_stand_in_their_order_however_they_came():
    rack = rack_of(["s2", "s0"])
    assert rack.held() == ("s0", "s2")
    rack.add("s1")
    assert list(rack.parts()) == ["embedding", "s0", "s1", "s2", "head"]
    assert (rack(IDS_BT) - rack_of()(IDS_BT)).abs().max() == 0


def test_untying_changes_no_logit_and_parts_the_two():
    rack = rack_of(tied=True)
    before_BTV = rack(IDS_BT).detach()
    assert rack.untie()
    assert (rack(IDS_BT) - before_BTV).abs().max() == 0
    assert rack.head.weight.data_ptr() != rack.embedding.tokens.data_ptr()
    assert not rack.untie()
    assert not rack_of().untie()


def test_an_unknown_or_repeated_stack_is_refused():
    rack = rack_of(["s0"])
    with pytest.raises(ValueError, match="'s9' is not a stack of this rack; known: s0, s1, s2"):
        rack.add("s9")
    with pytest.raises(ValueError, match="'s0' is in the rack already"):
        rack.add("s0")


def test_a_noisy_copy_is_off_by_the_part_that_is_asked_for():
    rack = rack_of(["s0"])
    stack = rack.add("s1")
    entry = NewStack(stack="s1", init="copy+noise", source="s0", noise=0.1)
    begin_as(stack, entry, rack.stacks, seed=3)
    source = rack.stacks["s0"].state_dict()
    for name, tensor in stack.state_dict().items():
        off = (tensor - source[name]).norm() / source[name].norm()
        # Of n normal numbers the norm is within 5/sqrt(2n) of its mean; n is 1024 or more.
        assert off == (pytest.approx(0.1, rel=0.12) if tensor.ndim >= 2 else 0)
    again = rack.add("s2")
    begin_as(again, entry, rack.stacks, seed=3)
    assert torch.equal(again.blocks[0].ffn.up.weight, stack.blocks[0].ffn.up.weight)
    begin_as(again, entry, rack.stacks, seed=4)
    assert not torch.equal(again.blocks[0].ffn.up.weight, stack.blocks[0].ffn.up.weight)


@pytest.mark.parametrize("kind", ["mha", "kernel"])
def test_an_interpolated_stack_is_the_mean_of_two(kind):
    rack = rack_of(["s0", "s2"], kind)
    stack = rack.add("s1")
    entry = NewStack(stack="s1", init="interpolate", source="s0", other="s2")
    begin_as(stack, entry, rack.stacks, seed=0)
    left, right = (rack.stacks[s].state_dict() for s in ("s0", "s2"))
    for name, tensor in stack.state_dict().items():
        assert torch.allclose(tensor, (left[name] + right[name]) / 2, rtol=0, atol=1e-7)


def test_what_a_start_lacks_is_said():
    stack, source = rack_of().stacks["s0"], rack_of().stacks["s1"]
    with pytest.raises(ValueError, match="init='interpolate' needs a second stack; give other"):
        grow(stack, "interpolate", source)
    with pytest.raises(ValueError, match=r"init='copy\+noise' needs noise and its generator"):
        grow(stack, "copy+noise", source)
