"""Losses at every depth, on fixed held-out draws."""

import math

import numpy as np
import pytest
import torch

from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape
from stackwise.objective import Corruption, loss_at
from stackwise.probe import entry_losses, exit_losses, fixed_draws

OBJECTIVES = ["clm", "mlm", "diffusion"]


@pytest.fixture
def rack(params):
    """Three stacks of two blocks; weights large enough that depth matters."""
    shape = RackShape(stacks=3, blocks_per_stack=2, d_model=16, heads=2, init_std=0.3)
    return Rack(shape, params.attention("mha"), 13)


@pytest.fixture
def windows_NT():
    return np.random.default_rng(0).integers(0, 13, (10, 8))


def rule_for(params, objective, **changes):
    return Corruption(params.objective(objective), 13, 4, 0, **changes)


def full_loss(rack, noisy, causal, path=None):
    with torch.no_grad():
        logits_BTV = rack(noisy.input_BT, causal=causal, path=path)
    logits_NV = logits_BTV[noisy.counted_BT]
    return float(loss_at(logits_NV, noisy.target_N, noisy.weight_N, noisy.input_BT.numel()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_last_exit_and_the_first_entry_are_the_rack_itself(objective, rack, windows_NT, params):
    causal = objective == "clm"
    noisy = fixed_draws(rule_for(params, objective), windows_NT)
    exits = exit_losses(rack, noisy, causal=causal, batch=3)
    entries = entry_losses(rack, noisy, causal=causal, batch=3)
    assert len(exits) == 1 + 6 and len(entries) == 1 + 3
    # Batches of another size differ in the last bits of float32.
    assert exits[-1] == pytest.approx(full_loss(rack, noisy, causal), rel=1e-5)
    assert entries[0] == pytest.approx(exits[-1], rel=1e-5)
    assert exits[0] == pytest.approx(entries[-1], rel=1e-5)
    assert len({round(x, 3) for x in exits}) == 7


def test_a_path_has_its_own_depths(rack, windows_NT, params):
    noisy = fixed_draws(rule_for(params, "diffusion", band=(0.0, 0.5)), windows_NT)
    exits = exit_losses(rack, noisy, causal=False, path=("s1", "s2"))
    entries = entry_losses(rack, noisy, causal=False, path=("s1", "s2"))
    assert len(exits) == 1 + 4 and len(entries) == 1 + 2
    assert exits[-1] == pytest.approx(full_loss(rack, noisy, False, ("s1", "s2")), rel=1e-5)
    assert entries[1] == pytest.approx(full_loss(rack, noisy, False, ("s2",)), rel=1e-5)


def test_what_knows_nothing_pays_log_v_and_what_knows_the_law_its_entropy(toy_law, params):
    law = toy_law()
    rule = Corruption(params.objective("diffusion"), 3, 4, 0)
    noisy = fixed_draws(rule, law.sample(4000))
    nothing, everything = exit_losses(law, noisy, causal=False)
    assert nothing == pytest.approx(math.log(3), rel=1e-6)
    assert everything == pytest.approx(law.entropy / 3, rel=0.03)


def test_held_out_draws_are_the_same_at_every_call(windows_NT, params):
    rule = rule_for(params, "diffusion")
    first, again = (fixed_draws(rule, windows_NT, draws=3) for _ in range(2))
    assert first.input_BT.shape == (30, 8)
    assert torch.equal(first.input_BT, again.input_BT)
    np.testing.assert_array_equal(first.target_BT, np.tile(windows_NT, (3, 1)))
    assert not torch.equal(first.counted_BT[:10], first.counted_BT[10:20])


def test_held_out_times_are_spread_over_the_windows(params):
    """Not over the training batch, so that few windows still see all noise."""
    windows_NT = np.zeros((20, 5), dtype=int)
    noisy = fixed_draws(rule_for(params, "diffusion", band=(0.0, 0.5)), windows_NT)
    times = np.sort(0.5 / noisy.weight_B.numpy())
    np.testing.assert_allclose(np.diff(times), 0.5 / 20, atol=1e-6)
    numbers = fixed_draws(rule_for(params, "diffusion"), windows_NT).counted_BT.sum(1)
    assert np.bincount(numbers).tolist() == [0, 4, 4, 4, 4, 4]


def test_probing_keeps_no_gradient_and_moves_nothing(rack, windows_NT, params):
    before = [p.clone() for p in rack.parameters()]
    exit_losses(rack, fixed_draws(rule_for(params, "mlm"), windows_NT), causal=False)
    assert all(p.grad is None for p in rack.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, rack.parameters(), strict=True))
