"""A part's random start is the same drawn at once, in pieces, or in another dtype."""

import pytest
import torch
from torch import nn

from stackwise.model.init import PIECE, Unfilled, draw_, generator_for, shelled
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

SHAPE = RackShape(stacks=2, blocks_per_stack=2, d_model=64, heads=2)


@pytest.mark.parametrize("size", [1, 15, 16, 17, PIECE, PIECE + 1, PIECE + 15, 2 * PIECE + 16])
def test_pieces_give_the_numbers_of_one_draw(size):
    whole = torch.empty(size).normal_(0.0, 0.5, generator=generator_for(3, "s0"))
    pieces, generator = torch.empty(size), generator_for(3, "s0")
    draw_(pieces, 0.5, generator)
    assert pieces.equal(whole)


def test_a_bfloat16_rack_starts_at_the_rounded_numbers_of_a_float32_one():
    full, half = (Rack(SHAPE, "mha", 11, seed=4, dtype=d) for d in (torch.float32, torch.bfloat16))
    for (name, ours), (_, theirs) in zip(
        half.named_parameters(), full.named_parameters(), strict=True
    ):
        assert ours.dtype == (torch.bfloat16 if ours.ndim >= 2 else torch.float32), name
        assert ours.equal(theirs.to(ours.dtype)), name


def test_torchs_own_start_is_not_drawn_and_what_is_set_otherwise_stays():
    before = torch.get_rng_state()
    with Unfilled():
        made = nn.Linear(4, 4)
        other = nn.LayerNorm(4)
    assert torch.get_rng_state().equal(before)
    assert other.weight.equal(torch.ones(4))
    nn.Linear(4, 4)
    assert not torch.get_rng_state().equal(before)  # so a draw would have been seen
    assert made.weight.shape == (4, 4)


def test_an_empty_stack_takes_no_memory_until_it_is_filled():
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    before = resident()
    wide = [shelled(lambda: nn.Linear(8192, 8192), torch.bfloat16) for _ in range(8)]
    assert resident() - before < 8192 * 8192  # of 8 * 2 * 8192 * 8192 bytes
    assert all(linear.weight.numel() == 8192 * 8192 for linear in wide)
