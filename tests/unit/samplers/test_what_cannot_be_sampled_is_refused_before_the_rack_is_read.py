"""Every refusal: path, value, rule, way out; from the call itself, with nothing read."""

import pytest
import torch

import stackwise as sw
from stackwise.model.rack import Rack
from tests.unit.samplers.conftest import BANDS

OTHERS = (
    "ancestral, first_hitting, confidence, margin, entropy, random, remask, semi_autoregressive, "
    "through_depth"
)


@pytest.fixture
def unread(monkeypatch):
    """No rack may be read."""

    def hidden(self, *args, **kwargs):
        raise AssertionError("it was read")

    monkeypatch.setattr(Rack, "hidden", hidden)


@pytest.mark.parametrize(
    ("objective", "asked", "text"),
    [
        (
            "diffusion",
            {"method": "autoregressive"},
            "method: 'autoregressive' reads from left to right, which objective=diffusion does not "
            f"learn; use {OTHERS} or leave it out",
        ),
        (
            "mlm",
            {"method": "autoregressive"},
            "method: 'autoregressive' reads from left to right, which objective=mlm does not learn",
        ),
        (
            "clm",
            {"method": "first_hitting"},
            "method: 'first_hitting' fills in masks, of which objective=clm knows none; use "
            "autoregressive or leave it out",
        ),
        (
            None,
            {"method": "through_depth"},
            "method: 'through_depth' goes from band to band, and this rack has no noise bands; use "
            "another sampler, or train with masking.bands=linear and curriculum=right_to_left",
        ),
        (
            None,
            {"method": "semi_autoregressive:0"},
            "block: '0' must be 1 or more",
        ),
        (
            None,
            {"method": {"kind": "semi_autoregressive", "block": 2}, "steps": 3},
            "steps: 3 < 4 windows of method.block=2 tokens; give 4 or more, or longer windows",
        ),
        (
            None,
            {"method": {"kind": "semi_autoregressive", "inner": "through_depth"}},
            "inner: through_depth fills the whole text by itself; use one of ancestral, first_hit",
        ),
        (
            None,
            {"method": {"kind": "semi_autoregressive", "inner": "confidense"}},
            "did you mean 'confidence'",
        ),
        (
            None,
            {"method": {"kind": "semi_autoregressive", "inner": "random:2"}, "steps": 8},
            "steps: 8 and method.per_step=2 both say how many positions a step commits; leave one",
        ),
        (
            None,
            {"method": "entropy:2", "steps": 4},
            "steps: 4 and method.per_step=2 both say how many positions a step commits; leave one "
            "of them out",
        ),
        (None, {"method": "entropy:0"}, "per_step: '0' must be 1 or more"),
        (
            None,
            {"method": {"kind": "margin", "per_step": 2, "schedule": "cosine"}},
            "schedule: 'cosine' is not read with per_step=2; leave it at linear",
        ),
        (None, {"method": "ancestral:sine"}, "unknown schedule 'sine'; did you mean"),
        (None, {"method": {"kind": "remask", "schedule": "ramp"}}, "ramp runs over training prog"),
        (None, {"method": {"kind": "remask", "sigma": "loop"}}, "sigma: 'loop'"),
        (
            None,
            {"method": {"kind": "remask", "eta": 2, "schedule": "ramp"}},
            "method.eta: 2 must be 1 or less\nmethod.schedule: ramp runs over training progress",
        ),
        (
            None,
            {"method": {"kind": "semi_autoregressive", "inner": "autoregressive"}},
            "method.inner: autoregressive fills the whole text by itself; use one of ancestral",
        ),
        (
            "block_diffusion",
            {"method": "autoregressive"},
            "which objective=block_diffusion does not learn; use semi_autoregressive or leave it",
        ),
        (
            "block_diffusion",
            {"method": "confidence"},
            "use semi_autoregressive with inner=confidence, leave it out, or write 4 tokens at",
        ),
        (
            "block_diffusion",
            {"method": "through_depth"},
            "each after those before it; use semi_autoregressive, leave it out, or write 4 tokens",
        ),
        (None, {"top_k": 0}, "top_k: 0 must be 1 or more; leave it out for all tokens"),
        (None, {"top_p": 0.0}, "top_p: 0.0 must be over 0, and at most 1; 1 keeps all tokens"),
        (None, {"top_p": 1.5}, "top_p: 1.5 must be over 0, and at most 1"),
        (None, {"length": -1}, "length: -1 must be 0 or more"),
        (None, {"seed": -1}, "seed: -1 must be 0 or more"),
        (
            None,
            {"method": "first_hitting", "steps": 3},
            "steps: 3 is not read with method=first_hitting, which says by itself how many steps "
            "there are; leave it out",
        ),
    ],
)
@pytest.mark.usefixtures("unread")
def test_it_says_why(objective, asked, text, rack_of):
    with pytest.raises(ValueError) as error:
        sw.stream(rack_of(objective), [0], **{"length": 8, **asked})
    assert text in str(error.value)


@pytest.mark.usefixtures("unread")
def test_steps_under_the_number_of_bands_are_refused(rack_of):
    rack = rack_of("diffusion", paths=BANDS)
    with pytest.raises(ValueError, match="steps: 2 < 3 noise bands; give 3 or more, or leave it"):
        sw.stream(rack, [], length=10, method="through_depth", steps=2)
    with pytest.raises(ValueError, match=r"steps: 4 and method\.per_step=1 both say"):
        method = {"kind": "through_depth", "per_step": 1}
        sw.stream(rack, [], length=10, method=method, steps=4)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ([7], "start: ids from 7 to 7, but the rack knows 0 to 4, and 5 as [MASK]; use the"),
        ([[[0]]], "start: 3 dimensions; give (T,) or (B, T)"),
    ],
)
def test_ids_that_are_not_known_are_refused(start, text, rack_of):
    with pytest.raises(ValueError) as error:
        sw.stream(rack_of(), start, length=1)
    assert text in str(error.value)


def test_a_rack_that_says_what_it_was_trained_for_gets_its_own_sampler(rack_of):
    """None is autoregressive for a causal rack; a bare rack takes what it is told."""
    causal = [step.new_BT[0].tolist() for step in sw.stream(rack_of("clm"), [], length=3)]
    assert causal == [[True, False, False], [False, True, False], [False, False, True]]
    *_, last = sw.stream(rack_of(), [], length=3, method="autoregressive")
    assert last.left == 0


def test_a_text_without_masks_stays_as_it_is(toy_law):
    law = toy_law()
    for method in ("first_hitting", "random", "entropy:2", "autoregressive", "remask"):
        assert list(sw.trajectory(law, torch.tensor([[0, 1, 2]]), method)) == []
    assert law.calls == []
