"""`stackwise advise`: what days of a machine buy, so that nobody starts what needs decades."""

from __future__ import annotations

from dataclasses import replace

import pytest

import stackwise as sw
from stackwise.planner.advise import WAYS
from stackwise.planner.hardware import HARDWARE

RACKS = ("gpt2-small", "llama-2-70b")


@pytest.fixture(scope="module")
def advice():
    return sw.advise("h200", 14, racks=RACKS)


def test_every_way_of_every_rack_is_there(advice) -> None:
    asked = [(r, start, way) for r in RACKS for start, ways in WAYS.items() for way in ways]
    assert [(b.rack, b.start, b.curriculum) for b in advice.bought] == asked


def test_each_plan_fills_the_days(advice) -> None:
    plans = [each.plan for each in advice.bought if each.plan]
    assert len(plans) >= 7
    for plan in plans:
        assert plan.fits and plan.days == pytest.approx(14, rel=0.05)


def test_what_does_not_fit_buys_nothing(advice) -> None:
    whole = {each.curriculum: each for each in advice.bought if each.rack == "llama-2-70b"}
    assert not whole["end_to_end"].fits and whole["end_to_end"].tokens == 0
    assert whole["left_to_right"].fits


def test_from_the_left_a_block_trains_on_its_own_stage_alone(advice) -> None:
    (left,) = [b for b in advice.bought if b.curriculum == "left_to_right" and b.rack == RACKS[1]]
    assert left.tokens_of_a_block == pytest.approx(left.tokens / 80)
    assert left.per_parameter == pytest.approx(left.tokens / 80 / left.parameters)
    years = 14 * 20 / left.per_parameter / 365.25
    assert years > 20
    assert f"llama-2-70b would take {years:,.0f} years for its 20" in str(advice)


def test_end_to_end_every_block_trains_on_all(advice) -> None:
    small = next(b for b in advice.bought if b.curriculum == "end_to_end" and b.rack == RACKS[0])
    assert small.tokens_of_a_block == small.tokens
    assert "The largest that gets its 20: gpt2-small" in str(advice)


def test_a_day_too_short_for_a_step_in_each_stage_is_said() -> None:
    text = str(sw.advise("h200", 0.001, racks=("llama-2-70b",)))
    assert "too few days" in text


def test_days_and_machines_that_cannot_be_are_refused() -> None:
    with pytest.raises(sw.ExperimentError, match=r"^--days: -1 must be over 0"):
        sw.advise("h200", -1)
    unknown = replace(HARDWARE["h200"], name="this", origin="unknown")
    with pytest.raises(sw.ExperimentError, match=r"has not been measured; do it with: .*calibrate"):
        sw.advise(unknown, 1)
