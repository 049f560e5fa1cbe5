"""The picture of a plan: bars that add up, the machine's line, and the plan's own words."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import stackwise as sw
from stackwise_widgets.views import plan_html, plan_summary
from stackwise_widgets.views.markup import bytes_said
from stackwise_widgets.views.membars import LEFT, RIGHT, categories_of

SVG = "{http://www.w3.org/2000/svg}"
TOY = sw.Experiment.preset("toy")
PLANS = {
    **{name: (name, "h200") for name in sw.presets()},
    "toy, left_to_right": (TOY.replace(curriculum="left_to_right"), "h200"),
    "toy, bands": (
        TOY.replace(curriculum="right_to_left", masking={"bands": "linear"}),
        "a100-80",
    ),
    "toy, forty visits": (
        TOY.replace(curriculum={"name": "block_coordinate", "cycles": 10}),
        "h100-80",
    ),
    "70B on a small card": ("llama-2-70b", "rtx-4090-24"),
}


@pytest.fixture(scope="module")
def plans():
    return {name: sw.plan(exp, hardware=card) for name, (exp, card) in PLANS.items()}


@pytest.mark.parametrize("name", PLANS)
def test_each_bar_adds_up_to_the_stages_peak(plans, name):
    plan = plans[name]
    root = ElementTree.fromstring(plan_html(plan))
    bars = {}
    for group in root.iter(f"{SVG}g"):
        rects = [rect for rect in group.iter(f"{SVG}rect") if rect.get("data-category")]
        bars[int(group.get("data-stage"))] = rects
    assert list(bars) == [row["stage"] for row in plan.rows]
    for row in plan.rows:
        counts = {r.get("data-category"): int(r.get("data-bytes")) for r in bars[row["stage"]]}
        assert sum(counts.values()) == row["peak_bytes"]
        assert counts == {k: v for k, v in categories_of(row).items() if v}
        for kind in ("weights", "gradients", "optimizer", "average", "activations"):
            assert counts.get(kind, 0) == row["peak"][kind]
        wide = [float(rect.get("width")) for rect in bars[row["stage"]]]
        each = sum(wide) / row["peak_bytes"]
        for rect, width in zip(bars[row["stage"]], wide, strict=True):
            assert width == pytest.approx(int(rect.get("data-bytes")) * each, abs=0.02)


@pytest.mark.parametrize("name", PLANS)
def test_the_machine_is_a_line_in_its_place_or_said_to_be_far_off(plans, name):
    plan = plans[name]
    html = plan_html(plan)
    bars = ElementTree.fromstring(html).iter(f"{SVG}g")
    worst = next(g for g in bars if int(g.get("data-stage")) == plan.needs.worst["stage"])
    width = sum(float(r.get("width")) for r in worst.iter(f"{SVG}rect"))
    has = f"{plan.hardware.name} has {bytes_said(plan.hardware.memory_bytes)}"
    line = re.search(r'class="sw-card" d="M([\d.]+) ', html)
    if line is None:
        assert f"{has}, far to the right →" in html
        assert plan.hardware.memory_bytes > 3.8 * plan.peak_bytes
    else:
        there = (float(line[1]) - LEFT) / width
        assert there == pytest.approx(plan.hardware.memory_bytes / plan.peak_bytes, rel=1e-3)
        assert has in html
    assert width <= RIGHT - LEFT


@pytest.mark.parametrize("name", PLANS)
def test_it_says_what_the_plan_says(plans, name):
    plan = plans[name]
    root = ElementTree.fromstring(plan_html(plan))
    text = "\n".join(" ".join(element.itertext()) for element in root.iter())
    for line in (*plan.problems, *plan.advice):
        assert line in text
    verdict = root.find("p[@class]").text
    assert verdict == ("fits" if plan.fits else "does not fit")
    sums = dict(
        zip((e.text for e in root.iter("dt")), (e.text for e in root.iter("dd")), strict=True)
    )
    printed = [line for line in str(plan).splitlines() if line[:10].strip() in sums]
    assert printed == [f"{key.ljust(10)}  {said}" for key, said in sums.items()]
    one = plan.experiment.curriculum.choice == "end_to_end"
    assert ("end to end" in sums) != one


def test_the_bracket_is_how_far_such_plans_were_off(plans):
    plan = plans["toy, forty visits"]
    assert "sw-error" not in plan_html(plan), "too small for any bracket"
    plan = plans["70B on a small card"]
    html = plan_html(plan)
    low, high = map(
        float, re.search(r'class="sw-error" d="M([\d.]+) [\d.]+H([\d.]+)', html).groups()
    )
    bar = plan.bars.of_peak(plan.peak_bytes)
    ratio = (high - LEFT) / (low - LEFT)
    assert ratio == pytest.approx((1 + bar.over_frac) / (1 - bar.under_frac), rel=1e-3)


def test_on_a_machine_without_rates_time_is_not_known():
    plan = sw.plan(TOY, hardware=replace(sw.HARDWARE["h200"], origin="unknown"))
    assert math.isnan(plan.days)
    assert "time not known" in plan_summary(plan)
    html = plan_html(plan)
    assert "nan" not in html.lower()
    assert "<td>not known</td>" in html


def test_the_summary_is_one_line(plans):
    assert plan_summary(plans["llama-2-70b"]) == (
        "fits h200, 44.5 GiB of 140.4 GiB, 10.3 days, 80 stages, 10.4 G tokens, 4.8e+20 FLOPs"
    )
    assert plan_summary(plans["70B on a small card"]).startswith(
        "does not fit rtx-4090-24, 44.5 GiB"
    )


def test_of_very_many_stages_those_that_take_most_have_bars():
    exp = TOY.replace(
        curriculum={"name": "block_coordinate", "cycles": 50}, budget={"tokens": 10**8}
    )
    plan = sw.plan(exp, hardware="h200")
    html = plan_html(plan)
    shown = {int(n) for n in re.findall(r'data-stage="(\d+)"', html)}
    least = min(plan.rows[n]["peak_bytes"] for n in shown)
    assert len(shown) == 128
    assert all(row["peak_bytes"] <= least for row in plan.rows if row["stage"] not in shown)
    assert "72 stages that take less are in the table alone" in html
    rows = ElementTree.fromstring(html).findall(".//tbody/tr")
    assert len(rows) == 201, "every stage, and the control"
