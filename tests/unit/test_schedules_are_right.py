"""Schedules: the weight is -alpha'/(1 - alpha), the inverse inverts, the bound is whole."""

import numpy as np
import pytest

from stackwise.choice import parse
from stackwise.errors import ExperimentError
from stackwise.masking import mean_mask_frac
from stackwise.schedules import (
    SCHEDULES,
    Polynomial,
    mask_ratio,
    names_of,
    polynomial,
    time_schedule,
)

OVER_TIME = ["linear", "cosine", "polynomial", "polynomial:1", "geometric", "geometric:0.01"]


def build(text):
    return time_schedule(parse(SCHEDULES, text, "masking.schedule", "name"))


def test_every_schedule_over_time_is_checked_here():
    assert {text.split(":")[0] for text in OVER_TIME} == set(names_of("time"))


@pytest.mark.parametrize("text", OVER_TIME)
def test_a_token_is_surely_visible_at_time_0_and_surely_masked_at_time_1(text):
    ends = build(text).alpha(np.array([0.0, 1.0]))
    assert ends == pytest.approx([1, 0], abs=1e-12)


@pytest.mark.parametrize("text", OVER_TIME)
def test_the_weight_is_the_slope_of_alpha_over_the_mask_probability(text):
    schedule, step = build(text), 1e-6
    t = np.linspace(0.02, 0.97, 50)
    slope = (schedule.alpha(t + step) - schedule.alpha(t - step)) / (2 * step)
    # Rounding of alpha, 1e-16, over the step, over a mask probability that is 1e-5 or more.
    expected = -slope / (1 - schedule.alpha(t))
    np.testing.assert_allclose(schedule.weight(t), expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("text", OVER_TIME)
def test_time_of_gives_back_the_time(text):
    schedule = build(text)
    lam = np.concatenate([[0.0], np.geomspace(1e-6, 1, 40)])
    np.testing.assert_allclose(
        1 - schedule.alpha(schedule.time_of(lam)), lam, rtol=1e-8, atol=1e-15
    )
    assert schedule.time_of(np.array([0.0, 1.0])) == pytest.approx([0, 1], abs=1e-10)


def expected_cost_of_a_constant_predictor(weight, mask_prob):
    """E over t of weight times the expected masked fraction, in units of log V."""
    node, share = np.polynomial.legendre.leggauss(400)
    # Time is bent (t = s^3) so that the nodes are dense where the geometric schedule lives.
    s = (node + 1) / 2
    t = s**3
    return np.sum(share / 2 * 3 * s**2 * weight(t) * mask_prob(t))


@pytest.mark.parametrize("text", OVER_TIME)
def test_a_constant_predictor_pays_log_v_under_every_schedule(text):
    schedule = build(text)
    cost = expected_cost_of_a_constant_predictor(schedule.weight, lambda t: 1 - schedule.alpha(t))
    assert cost == pytest.approx(1, abs=1e-6)


def second_moment(schedule):
    """The mean over time of weight^2 (1 - alpha), down to the smallest time that is drawn."""
    log_t = np.linspace(np.log(2.0**-53), 0, 20_001)
    t = np.exp(log_t)
    return float(np.trapezoid(schedule.weight(t) ** 2 * (1 - schedule.alpha(t)) * t, log_t))


@pytest.mark.parametrize("text", OVER_TIME)
def test_the_weights_of_every_schedule_have_a_bounded_second_moment(text):
    """At most pi/2 log(2^53), which is cosine's: where alpha starts straight, 1/t is summed."""
    assert second_moment(build(text)) <= np.pi / 2 * np.log(2.0**53) * 1.001


def test_a_power_under_one_is_refused_since_its_weights_have_none():
    """The failing control: w^2 times the integral of t^(w - 2)."""
    half = polynomial(Polynomial.model_construct(exponent=0.5))
    assert second_moment(half) == pytest.approx(0.5 * (2**26.5 - 1), rel=1e-3)
    with pytest.raises(ExperimentError, match=r"exponent: '0\.5' must be 1 or more"):
        build("polynomial:0.5")


@pytest.mark.parametrize(("text", "at"), [("ramp", (0.15, 0.525, 0.90)), ("constant", (0.15,) * 3)])
def test_schedules_over_progress_go_in_a_straight_line(text, at):
    params = parse(SCHEDULES, text, "masking.schedule", "name")
    assert [mask_ratio(params, p) for p in (0, 0.5, 1)] == pytest.approx(at)


def test_a_ramp_goes_down_as_well():
    params = parse(SCHEDULES, {"name": "ramp", "start": 0.9, "end": 0.15}, "schedule", "name")
    assert [mask_ratio(params, p) for p in (0, 1)] == pytest.approx([0.9, 0.15])


def test_a_schedule_of_the_wrong_kind_is_refused_by_name():
    ramp = parse(SCHEDULES, "ramp", "masking.schedule", "name")
    with pytest.raises(ValueError) as error:
        time_schedule(ramp)
    assert str(error.value) == (
        "masking.schedule: ramp runs over training progress, not over diffusion time; "
        "use linear, cosine, polynomial, geometric"
    )
    linear = parse(SCHEDULES, "linear", "masking.schedule", "name")
    with pytest.raises(ValueError, match=r"linear runs over diffusion time.*use constant, ramp"):
        mask_ratio(linear, 0.5)


def test_geometric_noise_must_rise():
    with pytest.raises(ValueError, match=r"sigma_min: 0\.5 must be under sigma_max=0\.1"):
        parse(SCHEDULES, {"name": "geometric", "sigma_min": 0.5, "sigma_max": 0.1}, "m", "name")


@pytest.mark.parametrize(
    ("text", "band", "frac"),
    [
        ("linear", (0.0, 1.0), 0.5),
        ("linear", (0.5, 1.0), 0.75),
        ("cosine", (0.0, 1.0), 2 / np.pi),
        ("polynomial", (0.0, 1.0), 1 / 3),
        ("ramp", (0.0, 1.0), 0.525),
    ],
)
def test_the_expected_masked_fraction_has_its_closed_form(text, band, frac):
    params = parse(SCHEDULES, text, "masking.schedule", "name")
    assert mean_mask_frac(params, band) == pytest.approx(frac, abs=1e-6)
