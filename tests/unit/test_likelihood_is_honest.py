"""Bits per byte of a rack whose likelihood is known in closed form."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stackwise.evaluation import evaluate, stratified_counts, systematic_stderr
from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape


@pytest.fixture
def clm(params):
    return params.objective("clm")


@pytest.fixture
def diffusion(params):
    return params.objective("diffusion")


def bits_of(law, words_NT):
    """Exact bits of some words under the law."""
    index_N = (words_NT[:, None] == law.words_XT).all(2).int().argmax(1)
    return -float(law.p[index_N].log2().sum())


def test_clm_scores_every_token_exactly(toy_law, clm):
    law = toy_law()
    words_NT = law.sample(200)
    found = evaluate(law, words_NT, 450, objective=clm, batch=33)
    # Logits are read in float32.
    assert found.bits_per_byte == pytest.approx(bits_of(law, words_NT) / 450, rel=1e-6)
    assert all((ids_BT[:, 0] == law.start_id).all() for ids_BT, _ in law.calls)
    assert (found.stderr, found.estimate, found.tokens, found.bytes) == (0, "exact", 600, 450)


def test_the_bound_of_exact_conditionals_is_the_likelihood(toy_law, diffusion):
    law = toy_law()
    words_NT = law.sample(400)
    found = evaluate(law, words_NT, 400 * 3, objective=diffusion, draws=16)
    exact = bits_of(law, words_NT) / 1200
    assert found.estimate == "nelbo"
    assert 0 < found.stderr < 0.02 * exact
    assert found.bits_per_byte == pytest.approx(exact, abs=4 * found.stderr)


def test_the_bound_of_another_law_is_above_the_entropy(toy_law, diffusion):
    law, other = toy_law(), toy_law(seed=1)
    found = evaluate(other, law.sample(2000), 6000, objective=diffusion, draws=4)
    assert found.nats_per_token * 3 > law.entropy + 0.1


def test_bits_are_divided_by_true_bytes_not_by_tokens(toy_law, diffusion):
    law = toy_law()
    words_NT = law.sample(50)
    once = evaluate(law, words_NT, 100, objective=diffusion)
    per_window = evaluate(law, words_NT, np.full(50, 4), objective=diffusion)
    assert per_window.bytes == 200
    assert per_window.bits_per_byte == pytest.approx(once.bits_per_byte / 2)
    nats = per_window.bits_per_byte * 200 * math.log(2)
    assert nats == pytest.approx(per_window.nats_per_token * 150)


def test_an_mlm_rack_gets_a_bound_that_says_so(toy_law, params):
    law = toy_law()
    words_NT = law.sample(20)
    mlm = evaluate(law, words_NT, 60, objective=params.objective("mlm"))
    bound = evaluate(law, words_NT, 60, objective=params.objective("diffusion"))
    assert mlm.bits_per_byte == bound.bits_per_byte
    assert mlm.note.startswith("an mlm rack has no likelihood of its own: upper bound (NELBO)")


def test_batches_and_repetition_change_no_digit_and_seeds_do(toy_law, diffusion):
    law = toy_law()
    words_NT = law.sample(40)
    first = evaluate(law, words_NT, 120, objective=diffusion, batch=7, draws=3)
    again = evaluate(law, words_NT, 120, objective=diffusion, batch=64, draws=3)
    other = evaluate(law, words_NT, 120, objective=diffusion, draws=3, seed=1)
    # The sums of a row do not depend on the batch; here even the last bit agrees.
    assert first == again
    assert other.bits_per_byte != first.bits_per_byte


def test_numbers_of_masks_are_spread_evenly():
    k_M, window_M, draw_M = stratified_counts(windows=12, length=9, draws=3, seed=0)
    assert (np.diff(k_M) >= 0).all()
    assert np.bincount(k_M, minlength=10)[1:].tolist() == [4] * 9
    assert sorted(zip(window_M, draw_M, strict=True)) == [
        (w, d) for w in range(12) for d in range(3)
    ]
    for seed in range(200):
        k_M, _, _ = stratified_counts(windows=1, length=4, draws=1, seed=seed)
        assert 1 <= k_M[0] <= 4


def test_every_number_of_masks_is_equally_likely():
    found = [int(stratified_counts(1, 4, 1, seed)[0][0]) for seed in range(2000)]
    # Four standard deviations of a count of 500.
    assert np.abs(np.bincount(found)[1:] - 500).max() < 4 * math.sqrt(500 * 0.75)


def test_the_standard_error_is_that_of_drawing_again(toy_law, diffusion):
    """Over 60 seeds; it may be too large by the windows' own spread, never much too small."""
    law = toy_law()
    words_NT = law.sample(30)
    found = [evaluate(law, words_NT, 90, objective=diffusion, seed=s, draws=4) for s in range(60)]
    deviation = np.std([f.bits_per_byte for f in found], ddof=1)
    assert deviation / 1.3 < np.mean([f.stderr for f in found]) < 3 * deviation


def test_a_trend_along_the_spacing_is_no_error():
    trend = np.linspace(0, 1, 100)
    assert systematic_stderr(trend) < 0.1 * trend.std(ddof=1) / math.sqrt(100)
    noise = np.random.default_rng(0).normal(size=1000)
    assert systematic_stderr(noise) == pytest.approx(1 / math.sqrt(1000), rel=0.15)
    assert systematic_stderr(np.ones(1)) == math.inf


def test_each_number_of_masks_runs_the_path_of_its_band(toy_law, diffusion):
    law = toy_law()
    law.path_for = lambda frac: ("light",) if frac <= 0.5 else ("heavy", "light")
    evaluate(law, law.sample(30), 90, objective=diffusion, draws=2)
    assert len(law.calls) > 1
    for ids_BT, path in law.calls:
        masked_B = (ids_BT == law.mask_id).sum(1)
        light = path == ("light",)
        assert (masked_B <= 1).all() if light else (masked_B >= 2).all()


def test_logits_are_made_in_parts_to_the_same_sum(toy_law, clm, diffusion, monkeypatch):
    law = toy_law()
    words_NT = law.sample(40)
    whole = [evaluate(law, words_NT, 120, objective=o) for o in (clm, diffusion)]
    monkeypatch.setattr("stackwise.evaluation.LOGITS_AT_ONCE", 21)
    parts = [evaluate(law, words_NT, 120, objective=o) for o in (clm, diffusion)]
    assert parts == whole


def test_a_real_rack_has_no_logit_for_mask_and_start_and_can_be_scored_in_bfloat16(params):
    shape = RackShape(stacks=2, blocks_per_stack=1, d_model=16, heads=2)
    rack = Rack(shape, params.attention("mha"), 13)
    windows_NT = np.random.default_rng(0).integers(0, 13, (20, 8))
    masked_BT = torch.full((1, 8), rack.mask_id)
    assert rack(masked_BT).shape == (1, 8, 13)
    for kind in ("clm", "diffusion"):
        objective = params.objective(kind)
        full = evaluate(rack, windows_NT, 160, objective=objective)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = evaluate(rack, windows_NT, 160, objective=objective)
        # An untrained rack is near the constant predictor; bfloat16 has 8 bits of mantissa.
        assert full.nats_per_token == pytest.approx(math.log(13), rel=0.05)
        assert half.bits_per_byte == pytest.approx(full.bits_per_byte, rel=2**-8)
        assert half.bits_per_byte != full.bits_per_byte


def test_no_gradient_is_kept(toy_law, diffusion):
    law = toy_law()
    law.p = torch.nn.Parameter(law.p)
    law.logits = lambda x: SimpleNamespace(float=lambda: _no_graph(x))
    evaluate(law, law.sample(4), 12, objective=diffusion)


def _no_graph(x):
    assert not x.requires_grad
    return x


@pytest.mark.parametrize(
    ("words", "size", "draws", "text"),
    [
        (np.zeros((0, 3), dtype=int), 10, 1, "0 tokens, 10 bytes, 1 draws; each must be 1 or more"),
        (np.zeros((2, 3), dtype=int), 0, 1, "6 tokens, 0 bytes"),
        (np.zeros((2, 3), dtype=int), 10, 0, "0 draws"),
    ],
)
def test_nothing_to_score_is_refused(words, size, draws, text, toy_law, diffusion):
    with pytest.raises(ValueError, match=text):
        evaluate(toy_law(), words, size, objective=diffusion, draws=draws)
