"""Learning-rate schedules in closed form, over a run and over the stages that share one."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

import stackwise as sw
from stackwise.config import Optim
from stackwise.training.rates import lr_at, stage_lr


def test_every_schedule_but_constant_ends_at_zero() -> None:
    for name in ("wsd", "cosine", "linear"):
        assert lr_at(Optim(schedule=name), 1.0) == pytest.approx(0, abs=1e-12)
    assert lr_at(Optim(schedule="constant", lr=0.1), 1.0) == 0.1


def test_the_closed_forms() -> None:
    wsd = Optim(lr=1.0, schedule="wsd", warmup_frac=0.1, decay_frac=0.4)
    assert [lr_at(wsd, x) for x in (0.0, 0.05, 0.1, 0.5, 0.6, 0.8)] == pytest.approx(
        [0, 0.5, 1, 1, 1, 0.5]
    )
    cosine = Optim(lr=1.0, schedule="cosine", warmup_frac=0.0)
    assert lr_at(cosine, 0.25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert lr_at(Optim(lr=1.0, schedule="linear", warmup_frac=0.2), 0.6) == pytest.approx(0.5)


def test_no_warmup_begins_at_the_peak() -> None:
    for name in ("wsd", "cosine", "linear", "constant"):
        assert lr_at(Optim(lr=0.3, schedule=name, warmup_frac=0.0), 0.0) == pytest.approx(0.3)


def test_stages_that_continue_read_one_schedule_end_to_end() -> None:
    optim = Optim(lr=1.0, schedule="linear", warmup_frac=0.0)
    left = sw.Stage(path=("s0",), lr="continue", lr_span=(0.0, 0.5))
    right = sw.Stage(path=("s0",), lr="continue", lr_span=(0.5, 1.0))
    split = [stage_lr(optim, stage, i, 10) for stage in (left, right) for i in range(10)]
    whole = sw.Stage(path=("s0",))
    assert split == pytest.approx([stage_lr(optim, whole, i, 20) for i in range(20)])


def test_rewarming_rises_again_from_zero() -> None:
    optim = Optim(lr=1.0, schedule="constant", warmup_frac=0.1)
    stage = sw.Stage(path=("s0",), lr="rewarm", lr_span=(0.5, 1.0))
    rates = [stage_lr(optim, stage, i, 100) for i in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[5] == pytest.approx(0.55)
    assert rates[10:] == [1.0] * 90


def closed_form(optim: Optim, x: float) -> float:
    """The schedules once more, from where a warm-up ends; `x` is a place in the span."""
    if x < optim.warmup_frac:
        return optim.lr * x / optim.warmup_frac
    left = (1 - x) / (1 - optim.warmup_frac)
    shape = {
        "constant": 1.0,
        "linear": left,
        "cosine": math.cos(math.pi * (1 - left) / 2) ** 2,  # (1 + cos 2y) / 2
        "wsd": min(1.0, (1 - x) / optim.decay_frac),
    }
    return optim.lr * shape[optim.schedule]


@pytest.mark.parametrize("name", ["wsd", "cosine", "linear", "constant"])
def test_every_step_of_a_stage_is_at_its_closed_form(name) -> None:
    optim = Optim(lr=0.3, schedule=name, warmup_frac=0.15, decay_frac=0.35)
    rates = [stage_lr(optim, sw.Stage(path=("s0",)), i, 40) for i in range(40)]
    assert rates == pytest.approx([closed_form(optim, (i + 0.5) / 40) for i in range(40)])
    assert all(0 < rate <= 0.3 for rate in rates), "no step is lost on a rate of zero"
    rising = rates[:6]
    assert rising == sorted(rising) and rates[6] <= 0.3
    falling = rates[6:]
    assert falling == sorted(falling, reverse=True), "after the warm-up no rate rises again"


def test_wsd_is_flat_at_the_peak_and_falls_by_equal_steps_to_exactly_zero() -> None:
    optim = Optim(lr=1.0, schedule="wsd", warmup_frac=0.1, decay_frac=0.25)
    assert {lr_at(optim, x / 100) for x in range(10, 76)} == {1.0}
    assert lr_at(optim, 1.0) == 0.0, "exactly, whatever the fractions"
    rates = [stage_lr(optim, sw.Stage(path=("s0",)), i, 80) for i in range(60, 80)]
    gaps = [a - b for a, b in pairwise(rates)]
    assert gaps == pytest.approx([1 / 20] * 19)
    assert rates[-1] == pytest.approx(gaps[0] / 2), "half a step is left: rates are of its middle"


def policy(name: str) -> tuple[sw.Experiment, list[list[float]]]:
    """Two stages of 50 steps each under a policy, and their rates."""
    exp = sw.Experiment(
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 8, "heads": 2},
        data={"corpus": "markov", "seq_len": 8},
        optim={"batch": 2, "lr": 1.0, "warmup_frac": 0.1, "decay_frac": 0.2},
        curriculum={"name": "grow", "by": "one", "lr": name, "split": "tokens"},
        budget={"tokens": 2 * 50 * 16},
    )
    made = sw.stages(exp)
    assert [stage.tokens for stage in made] == [800, 800]
    return exp, [[stage_lr(exp.optim, s, i, 50) for i in range(50)] for s in made]


def test_a_schedule_per_stage_decays_each_to_zero() -> None:
    exp, (first, second) = policy("per_stage")
    assert first == second
    assert first == pytest.approx([closed_form(exp.optim, (i + 0.5) / 50) for i in range(50)])
    assert first[-1] == pytest.approx(0.5 / 50 / 0.2)


def test_one_schedule_over_growth_warms_up_once_and_decays_once() -> None:
    exp, rates = policy("continue")
    whole = [closed_form(exp.optim, (i + 0.5) / 100) for i in range(100)]
    assert rates[0] + rates[1] == pytest.approx(whole)
    assert rates[0][-1] == rates[1][0] == 1.0, "nothing shows where the rack grew"


def test_rewarming_is_the_one_schedule_with_a_rise_after_each_growth() -> None:
    exp, rates = policy("rewarm")
    whole = [closed_form(exp.optim, (i + 0.5) / 100) for i in range(100)]
    assert rates[0] == pytest.approx(whole[:50]), "a first stage has nothing to rise from again"
    rise = [min(1.0, (i + 0.5) / 50 / 0.1) for i in range(50)]
    assert rates[1] == pytest.approx([r * w for r, w in zip(rise, whole[50:], strict=True)])
