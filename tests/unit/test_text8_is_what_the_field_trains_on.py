"""The preset text8: a million steps of 512 x 256 characters, and 90, 5 and 5 M of them."""

import numpy as np

import stackwise as sw
from stackwise.data.text import heldout_start

EXP = sw.Experiment.preset("text8")
CHARACTERS = 100_000_000


def test_it_takes_a_million_steps_through_twelve_blocks():
    assert EXP.budget.tokens == 1_000_000 * EXP.optim.batch * EXP.data.seq_len
    assert (EXP.optim.batch, EXP.data.seq_len) == (512, 256)
    assert (EXP.rack.stacks * EXP.rack.blocks_per_stack, EXP.rack.d_model) == (12, 768)
    assert EXP.objective.choice == "diffusion"


def test_ninety_million_characters_are_trained_on():
    text = np.broadcast_to(np.uint8(ord("a")), CHARACTERS)
    assert heldout_start(text, EXP.data.heldout_frac) == 90_000_000
