"""Without a path a rack runs its own: the one that it was trained with, in the order it was."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.evaluation import evaluate
from stackwise.sampling import sample_ids

SHAPE = sw.RackShape(stacks=3, blocks_per_stack=1, d_model=16, heads=2)
IDS_BT = torch.arange(12).view(2, 6) % 7


def rack(**choices) -> sw.Rack:
    return sw.Rack(SHAPE, sw.Experiment().attention, 7, **choices)


@pytest.fixture
def crossed() -> sw.Rack:
    """It holds three stacks and was trained to run two of them, the last one first."""
    return rack(paths=[(0.0, 1.0, ("s2", "s0"))])


def test_hidden_states_exits_and_logits_take_the_racks_path(crossed) -> None:
    expected_BTD = crossed.hidden(IDS_BT, path=("s2", "s0"))
    assert torch.equal(crossed.hidden(IDS_BT), expected_BTD)
    assert torch.equal(crossed(IDS_BT), crossed.logits(expected_BTD))
    *_, last_BTD = crossed.exits(IDS_BT)
    assert torch.equal(last_BTD, expected_BTD)
    assert len(list(crossed.exits(IDS_BT))) == 3


def test_the_path_is_that_of_the_heaviest_noise() -> None:
    banded = rack(paths=[(0.0, 0.5, ("s2",)), (0.5, 1.0, ("s0", "s1", "s2"))])
    assert torch.equal(banded(IDS_BT), banded(IDS_BT, path=("s0", "s1", "s2")))


def test_a_rack_that_was_told_no_path_runs_all_that_it_holds() -> None:
    growing = rack(stacks=("s2",))
    growing.add("s0")
    assert growing.paths == [(0.0, 1.0, ("s0", "s2"))]
    assert torch.equal(growing(IDS_BT), growing(IDS_BT, path=("s0", "s2")))


def test_likelihood_and_sampler_of_a_causal_rack_run_it(crossed, params) -> None:
    def score() -> float:
        clm = params.objective("clm")
        return evaluate(crossed, IDS_BT.numpy(), 12, objective=clm).bits_per_byte

    def text() -> list[int]:
        return sample_ids(crossed, [1], length=8, method="autoregressive").tolist()

    before, written = score(), text()
    crossed.stacks["s1"].requires_grad_(False).apply(  # the stack that is not on the path
        lambda module: [p.fill_(torch.nan) for p in module.parameters(recurse=False)]
    )
    assert (score(), text()) == (before, written)
