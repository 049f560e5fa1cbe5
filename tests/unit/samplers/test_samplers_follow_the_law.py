"""Samplers fill the masks and nothing else; with exact conditionals, by the exact law."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stackwise.choice import parse
from stackwise.sampling import (
    SAMPLERS,
    choose,
    logits_at,
    sample,
    sample_ids,
    takes_steps,
    trajectory,
)
from stackwise.schedules import time_schedule

DENOISING = ["ancestral", "ancestral:cosine", "ancestral:geometric", "confidence"]
METHODS = [*DENOISING, "autoregressive"]


def p_value(law, words_NT):
    """Of Pearson's chi-square of drawn words against the law of 27 words: 26 degrees of freedom.

    The upper tail of chi-square at x with n degrees is the regularised Gamma(n/2, x/2).
    """
    place_L = 3 ** torch.arange(2, -1, -1)
    count_X = torch.bincount((words_NT * place_L).sum(1), minlength=27)
    order_X = (law.words_XT * place_L).sum(1)
    expected_X = law.p * len(words_NT)
    statistic = ((count_X[order_X] - expected_X) ** 2 / expected_X).sum()
    return float(torch.special.gammaincc(torch.tensor(13.0).double(), statistic / 2))


def asked_steps(method, steps):
    """As many steps, where a sampler takes a number of them."""
    return steps if takes_steps(parse(SAMPLERS, method, "method", "kind")) else None


def empty(count):
    return torch.zeros(count, 0, dtype=torch.int64)


MANY = 300
EXACT = [
    ("ancestral", MANY),
    ("ancestral:cosine", MANY),
    ("autoregressive", None),
    ("first_hitting", None),
    ("random", None),
    ("margin", None),
    ("entropy", None),
    ({"kind": "semi_autoregressive", "block": 2, "inner": "first_hitting"}, None),
    ({"kind": "semi_autoregressive", "block": 1, "inner": "confidence"}, None),
    ({"kind": "remask", "eta": 0.004}, MANY),
    ({"kind": "remask", "eta": 0.01, "sigma": "rescale"}, MANY),
    ({"kind": "remask", "eta": 0.01, "when": "switch"}, MANY),
    ({"kind": "remask", "eta": 0.01, "when": "loop"}, MANY),
]
OTHERS = [
    ("ancestral", 1),
    ("confidence", None),
    ("margin", 1),
    ("entropy", 2),
    ("random", 2),
    ({"kind": "semi_autoregressive", "block": 3, "inner": "confidence"}, None),
    ({"kind": "semi_autoregressive", "block": 2, "inner": "random:2"}, None),
    ({"kind": "remask", "eta": 0.5}, 4),
]


@pytest.mark.parametrize(("method", "steps"), EXACT, ids=str)
def test_samples_follow_the_exact_law(method, steps, toy_law):
    """The ancestral law is exact for many steps: two letters leave together in 3 of `steps`.

    Orders by margin and entropy are exact, too: they depend on letters that are visible, not on
    those that are drawn, and the chain rule holds in any such order.
    """
    law = toy_law(spread=2.0)
    words = sample_ids(law, empty(3000), length=3, method=method, steps=steps)
    assert p_value(law, words) > 1e-3


@pytest.mark.parametrize(("method", "steps"), OTHERS, ids=str)
def test_letters_that_leave_together_or_by_their_confidence_do_not(method, steps, toy_law):
    """The failing controls: letters of one step are independent; likely letters are kept."""
    law = toy_law(spread=2.0)
    words = sample_ids(law, empty(3000), length=3, method=method, steps=steps)
    assert p_value(law, words) < 1e-9


@pytest.mark.parametrize("rule", ["random", "margin", "entropy"])
def test_bands_that_know_their_conditionals_give_the_law(rule, banded_law):
    law = banded_law(spread=2.0)
    words = sample_ids(law, empty(3000), length=3, method=f"through_depth:{rule}")
    assert p_value(law, words) > 1e-3
    assert {path for _, path in law.calls} == {path for _, _, path in law.paths}


def test_bands_by_confidence_do_not(banded_law):
    law = banded_law(spread=2.0)
    words = sample_ids(law, empty(3000), length=3, method="through_depth:confidence")
    assert p_value(law, words) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_prompts_stay_and_no_mask_is_left(method, temperature, toy_law):
    law = toy_law(length=6)
    prompt_BP = torch.tensor([[0, 1], [2, 2], [1, 0]])
    ids_BT = sample_ids(
        law,
        prompt_BP,
        length=4,
        method=method,
        steps=asked_steps(method, 3),
        temperature=temperature,
    )
    assert torch.equal(ids_BT[:, :2], prompt_BP)
    assert ids_BT.shape == (3, 6) and ids_BT.max() < law.vocab


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [1, 2, 5, 40])
def test_unmaskings_sum_to_the_masks_and_are_never_taken_back(method, steps, toy_law):
    law = toy_law(length=6)
    ids_BT = torch.tensor([[3, 3, 3, 3, 3, 3], [0, 3, 1, 3, 3, 2], [0, 1, 2, 0, 1, 2]])
    before, left = ids_BT, 0
    for after in trajectory(law, ids_BT.clone(), method, asked_steps(method, steps)):
        unmasked = (before == law.mask_id) & (after != law.mask_id)
        assert torch.equal(after[~unmasked], before[~unmasked])
        left += int(unmasked.sum())
        before = after
    assert left == 9
    assert before.max() < law.vocab


@pytest.mark.parametrize("method", METHODS)
def test_seeds_decide_the_sample(method, toy_law):
    law = toy_law(length=6)
    first, again, other = (
        sample_ids(law, empty(20), length=6, method=method, steps=asked_steps(method, 4), seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["linear", "cosine", "geometric"])
def test_masks_leave_at_the_pace_of_the_schedule(name, toy_law, params):
    law, steps = toy_law(), 8
    left = 1 - time_schedule(params.schedule(name)).alpha(np.linspace(1, 0, steps + 1))[1:]
    path = trajectory(law, torch.full((2000, 3), law.mask_id), f"ancestral:{name}", steps)
    for ids_BT, expected in zip(path, left, strict=True):
        found = (ids_BT == law.mask_id).double().mean()
        # Four standard deviations of 6000 independent masks.
        assert found == pytest.approx(expected, abs=4 * 0.5 / 6000**0.5)


def test_samples_on_different_paths_keep_their_rows(toy_law):
    law = toy_law(length=6)
    law.path_for = lambda frac: ("light",) if frac <= 0.5 else ("heavy", "light")
    alone = law.hidden
    law.hidden = lambda ids, *, causal, path: alone(ids, causal=causal) * len(path)
    ids_BT = torch.tensor(
        [[0, 3, 1, 2, 1, 3], [3, 3, 3, 3, 3, 3], [0, 1, 2, 0, 1, 2], [0, 3, 3, 2, 3, 1]]
    )
    masked_BT = ids_BT == law.mask_id
    together = logits_at(law, ids_BT, masked_BT)
    rows = [logits_at(law, ids_BT[[b]], masked_BT[[b]]) for b in (0, 1, 3)]
    torch.testing.assert_close(together, torch.cat(rows), rtol=0, atol=0)


def test_confidence_commits_the_surest_first(toy_law):
    law = toy_law()
    ids_BT = torch.full((1, 3), law.mask_id)
    sure_T = law.hidden(ids_BT, causal=False).exp().max(-1).values[0]
    first = next(trajectory(law, ids_BT, "confidence", 3, 0.0))
    assert (first != law.mask_id).nonzero()[0, 1] == sure_T.argmax()


def test_confidence_spreads_masks_evenly_over_steps(toy_law):
    law = toy_law(length=6)
    counts = [
        int((x == law.mask_id).sum())
        for x in trajectory(law, torch.full((1, 6), 3), "confidence", 4)
    ]
    assert counts == [5, 3, 2, 0]


@pytest.mark.parametrize("method", DENOISING)
def test_every_step_runs_the_path_of_the_masked_fraction(method, toy_law):
    law = toy_law(length=6)
    law.path_for = lambda frac: ("light",) if frac <= 0.5 else ("heavy", "light")
    sample_ids(law, empty(8), length=6, method=method, steps=6)
    assert {path for _, path in law.calls} == {("light",), ("heavy", "light")}
    for ids_BT, path in law.calls:
        masked_B = (ids_BT == law.mask_id).sum(1)
        assert (masked_B <= 3).all() if path == ("light",) else (masked_B > 3).all()


def test_the_rack_is_not_read_when_nothing_leaves(toy_law):
    law = toy_law()
    sample_ids(law, empty(1), length=3, method="ancestral", steps=500)
    assert len(law.calls) <= 3


def test_a_single_prompt_comes_back_single(toy_law):
    law = toy_law()
    assert sample_ids(law, [0, 1], length=1).shape == (3,)
    assert sample_ids(law, np.array([], dtype=np.int64), length=3).shape == (3,)


def test_text_goes_in_and_text_comes_out(toy_law):
    letters = "abc"
    tokenizer = SimpleNamespace(
        encode=lambda text: np.array([letters.index(c) for c in text], dtype=np.uint16),
        decode=lambda ids: "".join(letters[i] for i in ids),
    )
    text = sample(toy_law(), "ab", tokenizer=tokenizer, length=1)
    assert text[:2] == "ab" and len(text) == 3


def test_choosing_follows_the_temperature():
    logits_NV = torch.tensor([0.0, 1.0]).expand(20_000, 2)
    generator = torch.Generator().manual_seed(0)
    for temperature, odds in [(1.0, np.e), (0.5, np.e**2)]:
        share = choose(logits_NV, temperature, generator).double().mean()
        # Four standard deviations.
        assert share == pytest.approx(odds / (1 + odds), abs=4 * 0.5 / 20_000**0.5)
    assert choose(logits_NV, 0.0, generator).all()


def test_noise_is_drawn_in_float64(monkeypatch):
    """In float32 no Gumbel noise passes 17, so that a token 30 nats down could never be chosen."""
    largest = 1 - 2.0**-53

    def rand(*shape, dtype, generator):
        assert dtype == torch.float64
        return torch.tensor([[0.5, largest]], dtype=dtype)

    monkeypatch.setattr(torch, "rand", rand)
    assert choose(torch.tensor([[0.0, -30.0]]), 1.0, torch.Generator()).item() == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"method": "greedy"}, "unknown method 'greedy'; known: ancestral, first_hitting, confid"),
        ({"method": "confidense"}, "did you mean 'confidence'"),
        ({"method": "ancestral:ramp"}, "ramp runs over training progress"),
        ({"length": 0}, "length: 0 must be 1 or more"),
        ({"steps": 0}, "steps: 0 must be 1 or more; leave it out for one per token"),
        ({"temperature": -1.0}, "temperature: -1.0 must be 0 or more and finite; 0 takes the best"),
        ({"temperature": float("nan")}, "temperature: nan must be 0 or more and finite"),
        ({"temperature": float("inf")}, "temperature: inf must be 0 or more and finite"),
        ({"prompt": [3]}, "prompt: ids from 3 to 3, but the rack knows 0 to 2"),
        ({"prompt": [[[0]]]}, "prompt: 3 dimensions; give (P,) or (B, P)"),
    ],
)
def test_what_cannot_be_sampled_is_refused(change, text, toy_law):
    given = {"prompt": [0], "length": 2, **change}
    with pytest.raises(ValueError) as error:
        sample_ids(toy_law(), given.pop("prompt"), **given)
    assert text in str(error.value)
