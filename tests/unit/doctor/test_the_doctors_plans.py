"""Plans beside measurements: what is off is found, and becomes the error bar."""

from __future__ import annotations

import time

import pytest

from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.memory.bytes import plan_rows
from stackwise.planner.doctor import planned, predicted, shapes

GFLOPS = {"float32": 100.0, "bfloat16": 200.0}


def measured_as(peak_of, *turns: float, planned_seconds: float = 1.0):
    """Stands in for the runs: each stage is measured to what is said of its plan.

    Args:
        peak_of: Planned bytes to measured ones.
        turns: Seconds of a step each time that all runs are made.
        planned_seconds: What rates stand for.
    """
    made: list[str] = []

    def call(task, **given):
        if task is predicted.rates:
            return []
        if task is predicted.step_seconds:
            exps = [Experiment.from_yaml(run["experiment"]) for run in given["runs"]]
            return [[planned_seconds] * len(stages(exp)) for exp in exps]
        assert task is shapes.trained
        seconds = turns[len(made) // len(shapes.SHAPES)] if turns else 1.0
        made.append(given["experiment"])
        exp, place = Experiment.from_yaml(given["experiment"]), given["placement"]
        rows = plan_rows(exp, Placement(**place), stages(exp))
        found = [row["peak_bytes"] for row in rows]
        return [{"planned": n, "peak": peak_of(n), "seconds": seconds} for n in found]

    return call


@pytest.mark.parametrize(
    ("off", "state"),
    [(1.0, "ok"), (0.8, "failed"), (1.2, "failed"), (0.96, "ok"), (0.94, "failed"), (1.09, "ok")],
)
def test_a_plan_may_be_a_tenth_over_and_a_twentieth_under(visit, off, state) -> None:
    here = visit(measured_as(lambda plan: plan / off))
    found = planned.peaks(here)
    assert found.state == state
    bar = here.results["bar of peak"]
    assert bar["over_frac"] == pytest.approx(max(0, off - 1))
    assert bar["under_frac"] == pytest.approx(max(0, 1 - off))
    assert bar["figures"] == 16


def test_a_slow_machine_leaves_runs_out_and_names_them(visit, monkeypatch) -> None:
    monkeypatch.setattr(shapes, "SECONDS_IN_ALL", -1)
    here = visit(measured_as(lambda plan: plan))
    found = planned.peaks(here)
    assert found.state == "ok" and here.results["bar of peak"]["figures"] == 1
    left = ", ".join([*shapes.SHAPES][1:])
    assert found.measured.endswith(f"left out, since this machine is slow or busy: {left}")


def test_a_plan_a_fifth_under_says_by_how_much_to_multiply(visit) -> None:
    found = planned.peaks(visit(measured_as(lambda plan: plan / 0.8)))
    assert found.measured.startswith("16 stages of 6 runs: the plan is at most 20.0% under (")
    assert "count on 1.25 times the memory that a plan says" in found.to_do


def test_the_worst_of_both_sides_are_told_with_their_shapes() -> None:
    pairs = [("a", 90.0, 100.0), ("b", 105.0, 100.0), ("c", 101.0, 100.0)]
    assert planned.said(pairs) == (
        "3 stages of 3 runs: the plan is at most 5.0% over (b) and at most 10.0% under (a)"
    )
    assert planned.bar_of(pairs) == {
        "over_frac": pytest.approx(0.05),
        "under_frac": pytest.approx(0.1),
        "figures": 3,
    }


def test_where_no_peak_is_told_there_is_nothing_to_compare(visit) -> None:
    found = planned.peaks(visit(measured_as(lambda plan: None)))
    assert found.state == "skipped" and "does not tell the peak" in found.measured


@pytest.mark.parametrize(("off", "state"), [(1.0, "ok"), (1.25, "ok"), (0.6, "failed")])
def test_times_may_be_off_by_three_tenths(visit, off, state) -> None:
    here = visit(measured_as(lambda plan: plan, 2.0, 2.0, planned_seconds=2.0 * off))
    planned.peaks(here)
    found = planned.times(here)
    assert found.state == state
    assert here.results["bar of time"]["figures"] == 16
    assert here.results["bar of time"]["under_frac"] == pytest.approx(max(0, 1 - off))


@pytest.mark.parametrize(
    ("turns", "taken"), [((1.0, 1.05), 1.025), ((1.0, 1.5, 1.1), 1.1), ((1.8, 1.0, 1.0), 1.0)]
)
def test_runs_that_differ_are_made_a_third_time(visit, turns, taken) -> None:
    here = visit(measured_as(lambda plan: plan, *turns))
    planned.peaks(here)
    found = planned.times(here)
    for each in found.figures["measured"]:
        assert each == pytest.approx([taken] * len(each))


def test_where_time_is_short_the_first_runs_have_to_do(visit) -> None:
    until = time.monotonic() + planned.RESERVED
    here = visit(measured_as(lambda plan: plan, 1.2), until=until)
    planned.peaks(here)
    assert planned.times(here).figures["measured"][0] == [1.2]


def test_times_without_runs_are_skipped(visit) -> None:
    assert planned.times(visit()).state == "skipped"


@pytest.mark.parametrize("name", shapes.SHAPES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_shape_is_as_large_as_memory_lets_it_be(visit, name, device, monkeypatch) -> None:
    monkeypatch.setattr("stackwise.memory.bytes.on_card", lambda place: device == "cuda")
    here, plenty = visit(device=device), {"float32": 1e9, "bfloat16": 1e9}

    def planned_at(exp, place):
        return max(row["peak_bytes"] for row in plan_rows(exp, place, stages(exp)))

    last = 0
    for most in (100 << 20, 1 << 30, 4 << 30):
        exp, place = shapes.sized(name, here, most, plenty)
        width = exp.rack.d_model
        wider = shapes.shaped(name, shapes.WIDTHS[shapes.WIDTHS.index(width) + 1])
        assert planned_at(exp, place) <= most < planned_at(wider, place)
        assert width > last
        last = width
    slow, _ = shapes.sized(name, here, 4 << 30, {"float32": 1.0, "bfloat16": 1.0})
    assert slow.rack.d_model < last


def test_what_is_free_decides_what_a_run_may_take() -> None:
    assert shapes.usual_bytes("cpu", None) == 1 << 30
    assert shapes.usual_bytes("cpu", 64 << 30) == 1 << 30
    assert shapes.usual_bytes("cuda", 64 << 30) == 4 << 30
    assert shapes.usual_bytes("cpu", 4 << 30) == 1 << 29
    assert shapes.usual_bytes("cpu", 1 << 20) == shapes.LEAST_BYTES


def test_without_bitsandbytes_shapes_freeze_to_bf16(monkeypatch) -> None:
    assert shapes.shaped("a trunk in nf4", 128).precision.frozen == "nf4"
    monkeypatch.setattr("stackwise.model.formats.lacking", lambda: "needs bitsandbytes")
    assert shapes.shaped("a trunk in nf4", 128).precision.frozen == "bf16"
