"""A NaN, an infinity, a loss that ran away, a look that is missing: drawn as what they are."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stackwise.runs.events import read_events
from stackwise_widgets.charts import run_figure, run_still, run_table, view_of


def words(figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def training(figure) -> dict[float, float]:
    found = next(t for t in figure.data if t.name == "training")
    return dict(zip(found.x.tolist(), found.y.tolist(), strict=True))


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
def test_a_loss_that_is_no_number_is_a_gap_and_a_mark(trained, value, word) -> None:
    run = trained(change=lambda step: {"loss": value} if step in (3, 5) else {})
    view = view_of(run)
    figure = run_figure(view)
    assert f"<b>{word} at step 3 and 1 more</b>" in words(figure)
    assert not math.isfinite(training(figure)[3]) and training(figure)[4] == 1.25
    assert np.isnan(dict(zip(view.smooth.at.steps, view.smooth.value, strict=True))[3])
    line = next(s for s in figure.layout.shapes if s.type == "line")
    assert (line.x0, line.x1) == (3, 3)
    texts = [text.get_text() for text in run_still(view).axes[1].texts]
    assert f"{word} at step 3 and 1 more" in texts


def test_the_step_that_the_trainer_refused_is_marked_where_it_was(trained) -> None:
    error = (
        "TrainingError: step 11 (stage 1, s0 (x), y): the gradient norm is nan; lower lr, or look "
        "at this batch. No step was taken"
    )
    figure = run_figure(view_of(trained(close="failed", error=error)))
    assert "<b>gradient norm NaN at step 11</b>" in words(figure)
    plain = run_figure(view_of(trained("made-2", close="failed", error="OSError: disk")))
    assert "<b>failed after step 10</b>" in words(plain)


def test_a_loss_that_ran_away_is_marked_and_does_not_flatten_the_rest(trained) -> None:
    run = trained(steps=(30, 10), change=lambda step: {"loss": 2.0 if step < 20 else 10.0**step})
    view = view_of(run)
    figure = run_figure(view)
    # The mean of the last two steps is above three times the lowest at once.
    assert "<b>diverged at step 20</b>" in words(figure)
    assert figure.layout.yaxis2.type == "log"
    calm = run_figure(view_of(trained("made-2")))
    assert calm.layout.yaxis2.type == "linear"
    assert not any("diverged" in text for text in words(calm))


def test_a_missing_look_is_a_gap(trained) -> None:
    view = view_of(trained(skip=(4,)))
    drawn = dict(zip(view.heldout.at.steps.tolist(), view.heldout.value.tolist(), strict=True))
    assert np.isnan(drawn[4.0]) and drawn[2.0] == 1.02 + 0.002
    assert view.exits is not None
    column = view.exits.edges.steps.tolist().index(4.0) - 1
    assert np.isnan(view.exits.value[:, column]).all() and not view.exits.broken[:, column].any()
    assert not view.marks


def test_an_exit_that_is_no_number_is_a_cross(trained) -> None:
    run = trained()
    path = run.path / "events.jsonl"
    lines = read_events(path)
    look = next(event for event in lines if event["kind"] == "eval" and event["step"] == 8)
    look["exit_losses"][2], look["loss"] = "NaN", "Infinity"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    view = view_of(run)
    cross = next(t for t in run_figure(view).data if t.name == "no number")
    assert (list(cross.y), list(cross.x)) == (["s1.1"], [7.0])  # steps 6 to 8
    assert [mark.text for mark in view.marks] == ["held-out loss infinite at step 8"]
    table = run_table(view).query("panel == 'exit_loss' and steps == 8").set_index("row")["value"]
    assert np.isnan(table["s1.1"]) and table["s1.0"] == 1.081


def test_a_gradient_norm_that_is_no_number_is_a_cross_where_it_trains(trained) -> None:
    norms = [1.0, math.nan, 1.0, 1.0, math.nan, math.inf]
    run = trained(change=lambda step: {"block_grad_norms": norms} if step == 2 else {})
    view = view_of(run)
    cross = next(t for t in run_figure(view, heat="grad_norm").data if t.name == "no number")
    assert list(cross.y) == ["s2.0", "s2.1"] and set(cross.x) == {1.5}  # s0 does not train there


def test_a_run_that_never_looked_by_depth_says_so(trained) -> None:
    run = trained()
    path = run.path / "events.jsonl"
    lines = read_events(path)
    for line in lines:
        line.pop("exit_losses", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    view = view_of(run)
    assert view.exits is None
    assert "held-out loss by exit: no look by depth yet" in words(run_figure(view))
    assert run_still(view).axes[2].get_title(loc="left") == "held-out loss by exit: nothing yet"


def test_the_loss_of_a_noise_band_is_called_one(shipped) -> None:
    banded, whole = view_of(shipped["right_to_left"]), view_of(shipped["grow"])
    assert "loss (of each stage's own noise band)" in words(run_figure(banded))
    assert "loss" in words(run_figure(whole))
    assert (banded.whole, whole.whole) == (False, True)
