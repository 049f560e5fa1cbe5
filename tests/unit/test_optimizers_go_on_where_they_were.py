"""State that is written by name and read back goes on to the same bits, over a growth as well."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.config import Optim
from stackwise.stage import Stage
from stackwise.training.optim import Optimizer, load_optimizer_state, optimizer_state
from stackwise.training.trained import freeze_all_but
from stackwise.training.updates import OPTIMIZERS

INSTALLED = [name for name, rule in OPTIMIZERS.items() if not rule.missing()]


def rack_of(stacks: tuple[str, ...], dtype: torch.dtype) -> sw.Rack:
    shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=64, heads=2, d_ff=80)
    return sw.Rack(shape, sw.Experiment().attention, 70, stacks=stacks, dtype=dtype)


def step(rack: sw.Rack, optimizer: Optimizer, number: int) -> None:
    ids_BT = torch.randint(70, (2, 6), generator=torch.Generator().manual_seed(number))
    with torch.autocast("cpu", torch.bfloat16):
        rack(ids_BT, path=rack.held()).float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("rounding", ["master", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", INSTALLED)
def test_after_a_growth_what_was_there_goes_on_and_what_is_new_begins(
    name, dtype, rounding
) -> None:
    if dtype == torch.float32 and rounding == "stochastic":
        pytest.skip("float32 weights are not rounded")
    rack, optim = rack_of(("s0",), dtype), Optim(name=name)
    named = freeze_all_but(rack.parts(), Stage(path=("s0",), active=("s0",)))
    small = Optimizer(optim, named, rounding=rounding)
    for number in range(3):
        step(rack, small, number)
    kept = {
        part: {key: value.clone() for key, value in entries.items()}
        for part, entries in optimizer_state(small, named).items()
    }
    rack.add("s1")
    grown = freeze_all_but(rack.parts(), Stage(path=("s0", "s1"), active=("s0", "s1")))
    large = Optimizer(optim, grown, rounding=rounding)
    load_optimizer_state(large, grown, kept)
    there = optimizer_state(large, grown)
    assert set(there) == {"embedding", "s0", "head"}, "nothing is known of the new stack"
    for part, entries in there.items():
        assert set(entries) == set(kept[part])
        for key, value in entries.items():
            assert torch.equal(value, kept[part][key]) and value.dtype == kept[part][key].dtype
            assert value is not kept[part][key]
    old = {key: p for key, p in grown.items() if key[0] != "s1"}
    grads = {p: torch.randn_like(p, dtype=torch.float32).to(p.dtype) for p in old.values()}
    before = {p: p.detach().clone() for p in old.values()}
    found = []
    for optimizer in (small, large):
        for parameter, grad in grads.items():
            parameter.data.copy_(before[parameter])
            parameter.grad = grad.clone()
        optimizer.step()
        optimizer.zero_grad()
        found.append([p.detach().clone() for p in old.values()])
    assert all(map(torch.equal, *found)), "the next step is that of the optimizer that went on"
    step(rack, large, 9)
    steps = {key[0]: int(large.state[p]["step"]) for key, p in grown.items()}
    assert steps == {"embedding": 5, "s0": 5, "s1": 1, "head": 5}


@pytest.mark.parametrize("name", INSTALLED)
def test_reset_keeps_of_a_bfloat16_weight_its_lower_half_alone(name) -> None:
    rack, optim = rack_of(("s0",), torch.bfloat16), Optim(name=name)
    named = freeze_all_but(rack.parts(), Stage(path=("s0",), active=("s0",)))
    first = Optimizer(optim, named)
    for number in range(2):
        step(rack, first, number)
    again = Optimizer(optim, named)
    load_optimizer_state(again, named, optimizer_state(first, named), whole=False)
    for parameter, kept in again.state.items():
        assert torch.equal(again.exact_n(parameter), first.exact_n(parameter))
        assert not any(value.any() for key, value in kept.items() if key != "lower")
