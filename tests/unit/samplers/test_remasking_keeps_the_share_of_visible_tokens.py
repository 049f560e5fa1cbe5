"""ReMDM, against the formulas of arXiv 2503.00307 written out again."""

import math

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.choice import parse
from stackwise.sampling import SAMPLERS
from stackwise.sampling.remask import Remask, shared, sigma_at, visible
from stackwise.sampling.task import Task
from stackwise.sampling.view import View

KNOBS = [
    {"eta": 0.3},
    {"eta": 0.6, "sigma": "rescale"},
    {"eta": 0.4, "when": "switch", "t_on": 0.5},
    {"eta": 0.05, "when": "loop", "t_on": 0.6, "t_off": 0.2, "alpha_on": 0.7},
    {"eta": 0.3, "schedule": "cosine"},
]
STEPS = 10


def remask(**knobs):
    return parse(SAMPLERS, {"kind": "remask", **knobs}, "method", "kind")


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
def test_the_visible_share_is_that_of_the_schedule_however_much_is_taken_back(knobs, toy_law):
    """Theorem 3.1: four standard deviations of 3 x 3000 positions, at every step."""
    law = toy_law()
    want = visible(remask(**knobs), np.linspace(1, 0, STEPS + 1))[1:]
    start_BT = torch.full((3000, 3), law.mask_id)
    steps = list(sw.stream(law, start_BT, method={"kind": "remask", **knobs}, steps=STEPS))
    assert any(step.back_BT.any() for step in steps), "it takes back"
    for step, alpha in zip(steps, want, strict=True):
        found = 1 - step.left / start_BT.numel()
        assert found == pytest.approx(alpha, abs=4 * 0.5 / start_BT.numel() ** 0.5)


def test_without_sigma_it_is_ancestral_to_the_last_token(toy_law):
    law = toy_law(length=6)
    start_BT = torch.full((50, 6), law.mask_id)
    never = list(sw.trajectory(law, start_BT, {"kind": "remask", "eta": 0.0}, 12))
    plain = list(sw.trajectory(law, start_BT, "ancestral", 12))
    assert all(torch.equal(a, b) for a, b in zip(never, plain, strict=True))


@pytest.mark.parametrize(
    ("knobs", "time", "expected"),
    [  # before 0.8 visible, after it 0.9: at most 0.1 / 0.8
        ({"eta": 0.05}, 0.2, 0.05),
        ({"eta": 0.5}, 0.2, 0.125),
        ({"eta": 0.5, "sigma": "rescale"}, 0.2, 0.0625),
        ({"eta": 0.05, "when": "switch", "t_on": 0.3}, 0.2, 0.05),
        ({"eta": 0.05, "when": "switch", "t_on": 0.3}, 0.4, 0.0),
        ({"eta": 0.05, "when": "loop", "t_on": 0.3, "t_off": 0.1}, 0.2, 0.05),
        ({"eta": 0.05, "when": "loop", "t_on": 0.3, "t_off": 0.1}, 0.4, 0.0),
        ({"eta": 0.05, "when": "loop", "t_on": 0.3, "t_off": 0.1}, 0.1, 0.0),
    ],
)
def test_sigma_is_that_of_the_paper(knobs, time, expected):
    assert sigma_at(remask(**knobs), time, 0.8, 0.9) == pytest.approx(expected)


def test_in_a_loop_alpha_rises_waits_and_rises():
    """The three stretches of the paper, for the linear schedule."""
    params = remask(when="loop", t_on=0.6, t_off=0.2, alpha_on=0.9)
    time_S = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.0])
    want = [0, 0.45, 0.9, 0.9, 0.9, 0.95, 1]
    assert visible(params, time_S) == pytest.approx(want)


def test_what_was_chosen_at_a_low_probability_is_likelier_to_go(toy_law):
    """Shares exp(-p) / sum exp(-p) over the filled positions; none for masks and prompts."""
    ids_BT = torch.tensor([[0, 1, 2, 3, 0]])
    fill_BT = torch.tensor([[False, True, True, True, True]])
    task = Task(View(toy_law()), ids_BT, fill_BT, None, 1.0, torch.Generator())
    prob_BT = torch.tensor([[0.0, 0.9, 0.1, 0.0, 0.5]], dtype=torch.float64)
    params = Remask(confidence=True)
    found = shared(0.2, params, prob_BT, task, task.masked(ids_BT))[0]
    weights = [math.exp(-p) for p in (0.9, 0.1, 0.5)]
    want = [0.0, *(0.2 * each / sum(weights) for each in weights[:2]), 0.0, 0.2 * weights[2]]
    want[4] /= sum(weights)
    assert found.tolist() == pytest.approx(want)


@pytest.mark.parametrize(
    ("knobs", "text"),
    [
        ({"t_on": 0.5}, "t_on: 0.5 is not read with when=always; leave it at 0.55"),
        ({"when": "switch", "t_off": 0.1}, "t_off: 0.1 is not read with when=switch; leave it at"),
        ({"when": "loop", "t_off": 0.7}, "t_off: 0.7 must be under t_on=0.55; 0.05 is usual"),
        ({"sigma": "max"}, "sigma: 'max'"),
        ({"eta": 2}, "eta: 2"),
    ],
)
def test_knobs_that_do_not_go_together_are_refused(knobs, text):
    with pytest.raises(sw.ExperimentError) as error:
        remask(**knobs)
    assert text in str(error.value)
