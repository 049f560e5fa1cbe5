"""Learning-rate schedules in closed form, over a run and over the stages that share one."""

from __future__ import annotations

import math

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
