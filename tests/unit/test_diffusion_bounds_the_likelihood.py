"""The objectives against closed forms: a constant predictor, and a law known in full.

With exact conditionals the diffusion loss is the entropy, whatever the schedule (MDLM,
arXiv 2406.07524; MD4, 2406.04329); with any others it is above.
"""

from dataclasses import replace
from itertools import combinations, permutations
from math import log

import numpy as np
import pytest
import torch

from stackwise.objective import Corruption, corrupt, loss_at
from stackwise.schedules import SCHEDULES, Schedule, TimeSchedule, time_schedule

OVER_TIME = ["linear", "cosine", "polynomial", "geometric"]
OVER_PROGRESS = ["constant", "ramp"]
SCHEDULED = [
    ("clm", None),
    *[("mlm", s) for s in OVER_PROGRESS],
    *[("diffusion", s) for s in OVER_TIME],
]
V = 11


@pytest.fixture
def rule(params):
    def make(objective, schedule=None, **changes):
        chosen = params.schedule(schedule) if schedule else None
        values = {"vocab": V, "batch_size": 512, "seed": 0, "schedule": chosen, **changes}
        return Corruption(params.objective(objective), **values)

    return make


@pytest.fixture
def wrong(monkeypatch):
    """Registers a schedule called `wrong`, whose weight need not go with its alpha."""

    def register(alpha, weight):
        def build(params):
            return TimeSchedule(alpha, weight, lambda lam: lam)  # the whole of time: 0 and 1

        monkeypatch.setitem(SCHEDULES, "wrong", Schedule(build))

    return register


def constant_losses(noisy):
    """Loss of the predictor 1/V, one for every 512 samples."""
    return [
        float(
            loss_at(
                torch.zeros(len(part.target_N), V),
                part.target_N,
                part.weight_N,
                part.input_BT.numel(),
            )
        )
        for part in noisy.split(512)
    ]


@pytest.mark.parametrize(("objective", "schedule"), SCHEDULED)
def test_a_constant_predictor_pays_log_v_per_token(objective, schedule, rule, batch_of):
    ids_BT = np.random.default_rng(0).integers(0, V, (8192, 32))
    losses = constant_losses(corrupt(rule(objective, schedule), batch_of(ids_BT), progress=0.5))
    # Exact without times; otherwise within four standard errors, and those are small.
    error = np.std(losses, ddof=1) / np.sqrt(len(losses))
    assert error < 0.02 * log(V)
    assert np.mean(losses) == pytest.approx(log(V), abs=4 * error + 1e-5)


def test_with_a_stratified_number_a_constant_predictor_pays_log_v_exactly(rule, batch_of):
    ids_BT = np.random.default_rng(0).integers(0, V, (512, 32))
    losses = constant_losses(corrupt(rule("diffusion", sampling="stratified_k"), batch_of(ids_BT)))
    assert losses == pytest.approx([log(V)], rel=1e-5)


EPS = 1e-3  # MDLM's: sigma(t) = -log(1 - (1 - EPS) t), log-linear noise


def test_with_the_weight_d_sigma_a_constant_predictor_pays_5_9_log_v(rule, batch_of, wrong):
    """The failing control: a public record was wrong by this confusion.

    The right weight is dsigma / expm1(sigma) = 1/t. The integral of t dsigma over t is
    -1 - log(EPS) / (1 - EPS). Times lie 1/32768 apart, far closer than the EPS within which the
    wrong weight rises to 1000, so that drawing adds little: a part in a hundred.
    """
    ids_BT = np.random.default_rng(0).integers(0, V, (32768, 4))
    keep, paid = 1 - EPS, {}
    weights = {
        "right": lambda t: keep / (1 - keep * t) / np.expm1(-np.log1p(-keep * t)),
        "dsigma": lambda t: keep / (1 - keep * t),
    }
    for name, weight in weights.items():
        wrong(lambda t: 1 - keep * t, weight)
        how = rule("diffusion", "wrong", batch_size=len(ids_BT))
        paid[name] = np.mean(constant_losses(corrupt(how, batch_of(ids_BT)))) / log(V)
    assert paid["right"] == pytest.approx(keep, rel=0.02)  # EPS of the noise is missing
    assert paid["dsigma"] == pytest.approx(-1 - log(EPS) / keep, rel=0.01)
    assert paid["dsigma"] == pytest.approx(5.9, abs=0.07)


def subsets(length):
    """Every way to mask at least one of `length` positions, (2^L - 1, L)."""
    chosen = [c for k in range(1, length + 1) for c in combinations(range(length), k)]
    return torch.tensor([[t in c for t in range(length)] for c in chosen])


def enumerated_loss(law, rack, weight_of_count):
    """Expected loss in nats per word: every word of `law` under every mask, by `loss_at`.

    Args:
        law: Where the words come from.
        rack: What predicts them.
        weight_of_count: Probability of one particular mask of k tokens times the loss's weight.
    """
    masks_ST = subsets(law.words_XT.shape[1])
    words_BT = law.words_XT.repeat_interleave(len(masks_ST), 0)
    masked_BT = masks_ST.repeat(len(law.words_XT), 1)
    p_B = law.p.repeat_interleave(len(masks_ST))
    logits_BTV = rack.hidden(words_BT.masked_fill(masked_BT, law.mask_id), causal=False)
    weights = [weight_of_count(int(k)) for k in masked_BT.sum(1)]
    weight_B = p_B * torch.tensor(weights, dtype=torch.float64)
    weight_N = weight_B[:, None].expand_as(masked_BT)[masked_BT]
    return float(loss_at(logits_BTV[masked_BT], words_BT[masked_BT], weight_N, positions=1))


def diffusion_weight(schedule, length):
    """k -> integral over t of w(t) lambda^k (1 - lambda)^(L - k), by quadrature."""
    node, share = np.polynomial.legendre.leggauss(400)
    s = (node + 1) / 2
    t, share = s**3, share / 2 * 3 * s**2
    lam, weight = 1 - schedule.alpha(t), schedule.weight(t)
    return lambda k: float(np.sum(share * weight * lam**k * (1 - lam) ** (length - k)))


@pytest.mark.parametrize("name", OVER_TIME)
def test_with_exact_conditionals_the_diffusion_loss_is_the_entropy(name, toy_law, params):
    law = toy_law()
    weight = diffusion_weight(time_schedule(params.schedule(name)), 3)
    # The quadrature is exact for the linear schedule, whose integrand is a polynomial.
    tolerance = 1e-12 if name == "linear" else 1e-8
    assert enumerated_loss(law, law, weight) == pytest.approx(law.entropy, rel=tolerance)


def test_without_the_weight_mlm_is_far_below_the_entropy(toy_law):
    """The failing control: an mlm loss is no likelihood. One token in three is masked."""
    law = toy_law(spread=0.2)
    mlm = enumerated_loss(law, law, lambda k: float(k == 1))
    assert mlm < 0.7 * law.entropy


def test_one_over_k_summed_over_k_is_the_bound(toy_law, params):
    """Also for a rack that predicts another law, whose bound is above the entropy."""
    law, other, masks_of = toy_law(), toy_law(seed=1), {1: 3, 2: 3, 3: 1}
    for rack in (law, other):
        by_number = enumerated_loss(law, rack, lambda k: 1 / k / masks_of[k])
        by_time = enumerated_loss(
            law, rack, diffusion_weight(time_schedule(params.schedule("linear")), 3)
        )
        assert by_number == pytest.approx(by_time, rel=1e-12)
        # The failing control. If each masked letter cost the same it would be 2 and 2/3 of it.
        for weight, times in ((1, 2), (1 / 3, 2 / 3)):
            wrong = enumerated_loss(law, rack, lambda k, w=weight: w / masks_of[k])
            assert wrong / by_time == pytest.approx(times, rel=0.1)
    assert by_number > law.entropy + 0.1


def test_drawing_the_number_of_masks_gives_the_bound_and_with_another_weight_does_not(
    toy_law, rule, batch_of, params
):
    """By `corrupt` itself, whose weight L/k over L positions is the 1/k above."""
    law, other = toy_law(), toy_law(seed=1)
    bound = enumerated_loss(
        law, other, diffusion_weight(time_schedule(params.schedule("linear")), 3)
    )
    how = rule("diffusion", vocab=3, sampling="stratified_k")
    found, error = drawn_loss(other, law.sample(16384), how, batch_of)
    assert found == pytest.approx(bound, abs=4 * error)
    for weight in (3.0, 1.0):  # 1 and 1/L in place of 1/k
        wrong, error = drawn_loss(other, law.sample(16384), how, batch_of, weight=weight)
        assert abs(wrong - bound) > 0.25 * bound > 10 * error


def chain_nats(law, rack, order):
    """Expected nats of a word of `law`, its letters revealed in this order and told by `rack`."""
    ids_XT = torch.full_like(law.words_XT, law.mask_id)
    nats_X = torch.zeros(len(law.words_XT), dtype=torch.float64)
    for t in order:
        logits_XV = rack.hidden(ids_XT, causal=False)[:, t]
        target_X = law.words_XT[:, t]
        nats_X += torch.nn.functional.cross_entropy(logits_XV, target_X, reduction="none")
        ids_XT[:, t] = target_X
    return float(law.p @ nats_X)


def test_every_order_of_exact_conditionals_gives_the_entropy(toy_law):
    law = toy_law()
    for order in permutations(range(3)):
        assert chain_nats(law, law, order) == pytest.approx(law.entropy, rel=1e-12)


def test_inexact_conditionals_are_above_the_entropy_and_depend_on_the_order(toy_law):
    """The failing control: halved logits belong to no law, so no two orders need agree."""
    law, blunt = toy_law(), toy_law()
    exact = blunt.hidden
    blunt.hidden = lambda ids_BT, *, causal: exact(ids_BT, causal=causal) / 2
    found = [chain_nats(law, blunt, order) for order in permutations(range(3))]
    assert min(found) > law.entropy + 0.01
    assert max(found) - min(found) > 1e-3


def test_clm_is_the_left_to_right_order(toy_law, rule, batch_of):
    law = toy_law()
    noisy = corrupt(rule("clm", vocab=3), batch_of(law.words_XT.numpy()))
    logits_BTV = law.hidden(noisy.input_BT, causal=True)
    weight_N = law.p.repeat_interleave(3) * noisy.weight_N
    loss = loss_at(logits_BTV.flatten(0, 1), noisy.target_N, weight_N, positions=1)
    assert float(loss) == pytest.approx(law.entropy, rel=1e-12)


def drawn_loss(rack, words_BT, how, batch_of, weight=None):
    """Loss per word on drawn masks, and its standard error over groups of 512.

    `weight` replaces the weight of every sample.
    """
    noisy = corrupt(how, batch_of(words_BT.numpy()))
    if weight is not None:
        noisy = replace(noisy, weight_B=torch.full_like(noisy.weight_B, weight))
    losses = []
    for part in noisy.split(512):
        logits_BTV = rack.hidden(part.input_BT, causal=False)
        logits_NV = logits_BTV[part.counted_BT]
        losses.append(3 * float(loss_at(logits_NV, part.target_N, part.weight_N, 512 * 3)))
    return np.mean(losses), np.std(losses, ddof=1) / np.sqrt(len(losses))


@pytest.mark.parametrize("name", OVER_TIME)
def test_no_schedule_moves_the_bound(name, toy_law, rule, batch_of, params):
    """Any net, here one that predicts another law; within four Monte Carlo standard errors."""
    law, other = toy_law(), toy_law(seed=1)
    bound = enumerated_loss(
        law, other, diffusion_weight(time_schedule(params.schedule("linear")), 3)
    )
    found, error = drawn_loss(other, law.sample(16384), rule("diffusion", name, vocab=3), batch_of)
    assert error < 0.02 * bound
    assert found == pytest.approx(bound, abs=4 * error)


def test_cosine_masks_with_the_weight_of_linear_move_the_bound(
    toy_law, rule, batch_of, params, wrong
):
    """The failing control: the weight belongs to the schedule."""
    law, other = toy_law(), toy_law(seed=1)
    bound = enumerated_loss(
        law, other, diffusion_weight(time_schedule(params.schedule("linear")), 3)
    )
    wrong(time_schedule(params.schedule("cosine")).alpha, lambda t: 1 / t)
    how = rule("diffusion", "wrong", vocab=3)
    found, error = drawn_loss(other, law.sample(16384), how, batch_of)
    assert found > 1.2 * bound > bound + 10 * error


def test_visible_positions_contribute_nothing(rule, batch_of):
    noisy = corrupt(rule("diffusion"), batch_of(np.zeros((64, 16), dtype=np.int64)))
    logits_BTV = torch.randn(64, 16, V, generator=torch.Generator().manual_seed(0))
    logits_BTV.requires_grad_()
    loss = loss_at(logits_BTV[noisy.counted_BT], noisy.target_N, noisy.weight_N, 64 * 16)
    loss.backward()
    moved_BT = logits_BTV.grad.abs().sum(2) > 0
    assert torch.equal(moved_BT, noisy.counted_BT)


def test_a_batch_without_masks_costs_nothing_and_can_be_differentiated():
    logits_NV = torch.zeros(0, V, requires_grad=True)
    loss = loss_at(logits_NV, torch.zeros(0, dtype=torch.int64), torch.zeros(0), 8)
    loss.backward()
    assert float(loss.detach()) == 0


def test_micro_batches_add_up_to_the_batch(rule, batch_of):
    noisy = corrupt(rule("diffusion"), batch_of(np.zeros((64, 16), dtype=np.int64)))
    generator = torch.Generator().manual_seed(0)
    logits_BTV = torch.randn(64, 16, V, generator=generator, dtype=torch.float64)
    parts = [
        loss_at(logits_PTV[part.counted_BT], part.target_N, part.weight_N, 64 * 16)
        for part, logits_PTV in zip(noisy.split(5), logits_BTV.split(5), strict=True)
    ]
    whole = loss_at(logits_BTV[noisy.counted_BT], noisy.target_N, noisy.weight_N, 64 * 16)
    assert float(sum(parts)) == pytest.approx(float(whole), rel=1e-12)
