"""The brackets of a plan: from the doctor's file for this machine, else from what ships."""

from __future__ import annotations

import json

import pytest

import stackwise as sw
from stackwise.planner import bars
from stackwise.planner.doctor.record import SMALL, Bar, device_name, usual_file, write
from stackwise.planner.hardware import HARDWARE, hardware_called


def test_what_may_be_measured_lies_between_them() -> None:
    bar = Bar(over_frac=0.25, under_frac=0.2, figures=3)
    assert bars.between(100.0, bar) == pytest.approx((80.0, 125.0))
    assert bars.between(100.0, None) == (100.0, 100.0)


def test_a_plan_too_small_for_the_bar_is_shown_without() -> None:
    small = sw.plan("toy", hardware="h200")
    wide = sw.Experiment.preset("toy").replace(rack={"d_model": 1024})
    large = sw.plan(wide, hardware="h200")
    assert small.peak_bytes < SMALL <= large.peak_bytes
    assert [" to " in line_of(plan, "card") for plan in (small, large)] == [False, True]


def line_of(plan: sw.Plan, name: str) -> str:
    """One of the lines under the table."""
    return next(line for line in str(plan).splitlines() if line.startswith(name))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A doctor's file of this machine."""
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    peak = {"over_frac": 0.5, "under_frac": 0.25, "figures": 12}
    facts = {"made": "2026-01-01", "machine": "m", "ok": True, "checks": []}
    one = {"peak": peak, "time": None, "made": "2026-01-01", "version": "1"}
    write(usual_file(), facts, {device_name("cpu"): one})
    return peak


def test_plans_for_this_machine_have_the_doctors(own) -> None:
    here = hardware_called("this")
    if here.kind != "cpu":
        pytest.skip("this machine has a card, of which the file says nothing")
    found = bars.bars_for(here)
    assert found.peak == Bar(**own) and found.time is None
    plan = sw.plan("toy", hardware=here)
    assert "50.0 % too much to 25.0 % too little in 12 plans; time not compared yet" in str(plan)


def test_plans_for_another_machine_have_what_ships(own) -> None:
    assert bars.bars_for(HARDWARE["h200"]) is bars.shipped()
    assert "none was measured on a card" in str(sw.plan("toy", hardware="h200"))


def test_what_ships_is_what_benchmarks_bound() -> None:
    """Peaks within 10 % and never more than 5 % under, times within 30 %."""
    found = bars.shipped()
    if found.peak is not None:
        assert found.peak.over_frac <= 0.10 and found.peak.under_frac <= 0.05
    if found.time is not None:
        assert 1 + found.time.over_frac <= 1.3 and 1 - found.time.under_frac >= 1 / 1.3


def test_what_ships_can_be_read_as_it_lies() -> None:
    text = (bars.resources.files("stackwise.planner") / "bars.json").read_text("utf-8")
    facts = json.loads(text)
    assert facts["device"] == bars.shipped().where
