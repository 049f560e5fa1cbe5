"""Times drawn from a bell count by their importance: every expectation is what it was."""

from __future__ import annotations

from itertools import combinations, pairwise
from math import log
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import stackwise as sw
from stackwise.bell import USUAL, Bell, bell_times, density
from stackwise.errors import ExperimentError
from stackwise.memory.counted import most_counted
from stackwise.memory.flops import counted_frac
from stackwise.objective import Corruption, corrupt, loss_at
from stackwise.schedules import names_of, time_schedule

BELLS = [USUAL, Bell(0.3, 0.25), Bell(1.0, 0.4), Bell(0.5, 10.0)]
EVEN = (np.arange(200_000) + 0.5) / 200_000
SHARP = Bell(0.8, 0.2)
V = 7


@pytest.mark.parametrize("bell", BELLS)
def test_the_density_is_whole_and_is_what_times_are_drawn_from(bell):
    node, share = np.polynomial.legendre.leggauss(200)
    assert share @ density((node + 1) / 2, bell) / 2 == pytest.approx(1, abs=1e-12)
    time_B, _ = bell_times(np.array([1e-9, 0.1, 0.5, 0.9, 1.0]), bell)
    for below, time in zip([1e-9, 0.1, 0.5, 0.9, 1.0], time_B, strict=True):
        assert share @ density(time * (node + 1) / 2, bell) * time / 2 == pytest.approx(below)


@pytest.mark.parametrize("bell", BELLS)
@pytest.mark.parametrize("power", [0, 1, 3])
def test_by_quadrature_every_expectation_is_that_of_uniform_times(bell, power):
    """Midpoints of 200 000 pieces: their error falls with the square of the piece."""
    time_B, weight_B = bell_times(EVEN, bell)
    assert (time_B**power * weight_B).mean() == pytest.approx(1 / (power + 1), rel=1e-6)


def word_bound(law, schedule, draw):
    """Expected loss in nats per word: every word under every mask, at times that `draw` gives."""
    time_B, importance_B = draw(EVEN)
    hidden_B, weight_B = 1 - schedule.alpha(time_B), importance_B * schedule.weight(time_B)
    total = 0.0
    for k in (1, 2, 3):
        chance = (weight_B * hidden_B**k * (1 - hidden_B) ** (3 - k)).mean()
        for chosen in combinations(range(3), k):
            masked_BT = torch.tensor([[t in chosen for t in range(3)]]).expand(27, 3)
            seen_BT = law.words_XT.masked_fill(masked_BT, law.mask_id)
            logits_BTV = law.hidden(seen_BT, causal=False)
            p_N = law.p[:, None].expand(27, 3)[masked_BT]
            logits_NV, target_N = logits_BTV[masked_BT], law.words_XT[masked_BT]
            total += chance * float(loss_at(logits_NV, target_N, p_N, positions=1))
    return total


@pytest.mark.parametrize("bell", BELLS[:3])
@pytest.mark.parametrize("name", names_of("time"))
def test_with_exact_conditionals_the_loss_is_the_entropy(bell, name, toy_law, params):
    """Three letters, words of three, all 27 under all seven masks."""
    law, schedule = toy_law(), time_schedule(params.schedule(name))
    found = word_bound(law, schedule, lambda u_B: bell_times(u_B, bell))
    # A bell has few of its times where the geometric schedule moves: the midpoints are far apart.
    assert found == pytest.approx(law.entropy, rel=2e-4 if name == "geometric" else 1e-6)


def test_without_the_importance_it_is_another_loss(toy_law, params):
    """The failing control: what clipped schedules train on."""
    law, schedule = toy_law(), time_schedule(params.schedule("linear"))
    found = word_bound(law, schedule, lambda u_B: (bell_times(u_B, SHARP)[0], 1.0))
    assert abs(found / law.entropy - 1) > 0.05


def paid(how, batch_of, rows=8192, tokens=32):
    """What a constant predictor pays per token, in units of log V, and its standard error."""
    ids_BT = np.random.default_rng(0).integers(0, V, (rows, tokens))
    noisy = corrupt(how, batch_of(ids_BT))
    parts = [
        float(loss_at(torch.zeros(len(p.target_N), V), p.target_N, p.weight_N, p.input_BT.numel()))
        for p in noisy.split(512)
    ]
    return np.mean(parts) / log(V), np.std(parts, ddof=1) / np.sqrt(len(parts)) / log(V)


@pytest.mark.parametrize("name", names_of("time"))
def test_a_constant_predictor_pays_log_v(name, params, batch_of):
    diffusion, schedule = params.objective("diffusion"), params.schedule(name)
    how = Corruption(diffusion, V, 512, 0, schedule, "bell", bell=Bell(0.4, 0.3))
    mean, error = paid(how, batch_of)
    assert error < 0.02
    assert mean == pytest.approx(1, abs=4 * error + 1e-5)


def test_inside_a_band_a_constant_predictor_pays_the_bands_part(params, batch_of):
    """The integral of w lambda over a band's time is the band's width, and bands add up."""
    for band in pairwise((0.0, 0.2, 0.7, 1.0)):
        how = Corruption(
            params.objective("diffusion"), V, 512, 0, params.schedule("cosine"), "bell", band
        )
        mean, error = paid(how, batch_of, rows=4096)
        assert mean == pytest.approx(band[1] - band[0], abs=4 * error + 1e-5)


def experiment(curriculum="end_to_end", **masking):
    return sw.Experiment.preset("toy").replace(masking=masking, curriculum=curriculum)


@pytest.mark.parametrize("bands", [None, (0.3, 0.6, 0.8)])
def test_the_ledger_knows_how_much_a_bell_hides(bands, batch_of):
    exp = experiment(
        "right_to_left",
        sampling="bell",
        bell_center=0.9,
        bell_width=0.2,
        schedule="cosine",
        bands=bands,
    )
    stage = sw.stages(exp)[1]
    how = Corruption(
        exp.objective,
        V,
        512,
        0,
        exp.masking.schedule,
        "bell",
        stage.band,
        bell=exp.masking.bell,
    )
    noisy = corrupt(how, batch_of(np.zeros((4096, 64), dtype=np.int64)))
    # The deviation of the mean of 2^18 draws is 1/1024 at most.
    assert counted_frac(exp, stage) == pytest.approx(float(noisy.mask_frac_B.mean()), abs=4 / 1024)
    middle = exp.replace(masking={"bell_center": 0.1})
    assert counted_frac(middle, stage) < counted_frac(exp, stage)


def test_the_largest_batch_that_a_bell_hides_is_planned(batch_of):
    exp = experiment(sampling="bell", bell_center=0.2, bell_width=0.2)
    (stage,), size = sw.stages(exp), exp.optim.batch
    how = Corruption(exp.objective, V, size, 0, exp.masking.schedule, "bell", bell=exp.masking.bell)
    noisy = corrupt(how, batch_of(np.zeros((400 * size, 64), dtype=np.int64)))
    largest = int(noisy.counted_BT.view(400, -1).sum(1).max())
    planned = most_counted(exp, sw.Placement(), stage)
    assert 0.9 * planned < largest < 1.1 * planned


def test_what_goes_nowhere_is_refused():
    with pytest.raises(ExperimentError, match=r"masking.sampling: bell does not go with .*=mlm"):
        experiment(sampling="bell").replace(objective="mlm", masking={"schedule": "constant"})
    with pytest.raises(
        ExperimentError,
        match=r"masking.bell_center: 0.3 is not read with sampling=antithetic; leave it at 0.5",
    ):
        experiment(bell_center=0.3)
    with pytest.raises(ExperimentError, match="bell_width"):
        experiment(sampling="bell", bell_width=0.01)  # its weights would reach 1e80


def test_a_batch_is_a_namespace_of_arrays_as_before(params):
    """A batch without orders of its own, as a user's loader may make one."""
    place_B = np.arange(4)
    batch = SimpleNamespace(
        ids_BT=np.zeros((4, 8), dtype=int), sample_B=place_B, draw_B=0 * place_B, place_B=place_B
    )
    assert corrupt(Corruption(params.objective("diffusion"), V, 4, 0), batch).counted_BT.any()
