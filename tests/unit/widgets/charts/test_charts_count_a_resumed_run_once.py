"""A run that was stopped and went on shows each step once: what the last attempt took."""

from __future__ import annotations

import pytest

from stackwise.runs.layers import layers_of
from stackwise_widgets.charts import overlay_data, run_figure, view_of


def test_steps_that_were_taken_again_count_once(made, attempt) -> None:
    run = made()
    attempt(run, 1, 8, close="stopped")
    attempt(run, 5, 10, change=lambda step: {"loss": 100.0 + step})
    view = view_of(run)
    training = next(t for t in run_figure(view).data if t.name == "training")
    drawn = {x: y for x, y in zip(training.x, training.y, strict=True) if y == y}
    assert drawn == {s: 1 + 1 / s if s < 5 else 100.0 + s for s in range(1, 11)}
    looks = [step for step, value in zip(view.heldout.at.steps, view.heldout.value, strict=True)
             if value == value]  # fmt: skip
    assert looks == [2, 4, 6, 8, 10]
    assert view.exits is not None and view.exits.edges.steps.tolist() == [0, 2, 4, 6, 8, 10]
    assert view.norms is not None and view.norms.edges.steps.tolist() == list(range(11))


def test_layers_and_overlays_count_them_once_too(made, attempt) -> None:
    run = made()
    attempt(run, 1, 8, close="stopped")
    attempt(run, 5, 10)
    assert layers_of(run).groupby("step").size().to_dict() == {2: 3, 4: 3, 6: 3, 8: 5, 10: 5}
    looks = overlay_data([run]).query("kind == 'heldout'")
    assert looks["steps"].tolist() == [2, 4, 6, 8, 10]


def test_what_is_planned_stands_where_it_will_be(made, attempt) -> None:
    run = made(steps=(6, 4, 10))
    attempt(run, 1, 8, close="stopped")
    first, second, third = view_of(run).stages
    assert [s.state for s in (first, second, third)] == ["done", "running", "waiting"]
    assert first.end == {"steps": 6.0, "tokens": 96.0, "flops": 6e9, "seconds": 3.0}
    assert second.end == {"steps": 10.0, "tokens": 160.0, "flops": 10e9, "seconds": 5.0}
    assert third.end == {"steps": 20.0, "tokens": 320.0, "flops": 20e9, "seconds": 10.0}
    # status.json says 2 seconds; 2 steps of the second stage and 10 of the third are left.
    assert first.seconds_left == 0.0
    assert second.seconds_left == pytest.approx(2 * 2 / 12)
    assert third.seconds_left == pytest.approx(2 * 10 / 12)
    figure = run_figure(view_of(run))
    assert {s.name for s in figure.layout.shapes} == {
        "ends reached",
        "ends planned",
        "trains",
        "mark",
    }
    assert (second.measured, third.predicted["weights"]) == ({}, 3000.0)
