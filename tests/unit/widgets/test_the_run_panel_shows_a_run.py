"""Run: launched, watched, paused, stopped, branched by its buttons; read from the folder alone."""

from __future__ import annotations

import time

import pytest

import stackwise as sw
from stackwise.runs import status
from stackwise.runs.control import ask
from stackwise.runs.lock import SUPERVISOR, take
from stackwise.training.start import create_run
from stackwise_widgets import RunPanel
from stackwise_widgets.charts import view_of
from stackwise_widgets.run_controls import Controls
from stackwise_widgets.standing import ASKED, state_text

LIMIT = 90.0


def until(what) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def usable(panel: RunPanel) -> set[str]:
    return {name for name, button in panel.controls.buttons.items() if not button.disabled}


@pytest.fixture
def long(tiny) -> sw.Experiment:
    return tiny.replace(budget={"tokens": 10_000_000})


def test_a_finished_run_is_there_at_once(shipped) -> None:
    panel = RunPanel(run=shipped[0])
    assert panel.errors == []
    assert shipped[0].id in panel.standing.value and "finished" in panel.standing.value
    assert panel.chart is not None and len(panel.chart.figure.data) > 4
    assert "sw-grid" in panel.branching.grid.value or "<figure" in panel.branching.grid.value
    assert usable(panel) == {"launch", "next"}  # and neither of them is shown
    assert panel.controls.buttons["launch"] not in panel.controls.children
    assert len(panel.data()) > 100
    panel.list_numbers()
    assert "<table" in panel.table.value
    assert f"sw.attach({str(shipped[0].path)!r})" in panel.code()


def test_a_run_is_launched_watched_paused_and_stopped(long, place) -> None:
    panel = RunPanel(long, place)
    assert usable(panel) == {"launch", "next"}
    panel.press("launch")
    assert panel.settle() and panel.run is not None
    until(lambda: panel.chart is not None and panel.chart.view.step > 2)
    assert "running, step" in panel.standing.value
    assert usable(panel) == {"launch", "next", "pause", "stop", "stop-now"}
    panel.press("pause")
    until(lambda: "paused" in panel.standing.value and "resume" in usable(panel))
    held = panel.run.status()["step"]
    panel.press("resume")
    until(lambda: panel.run.status()["step"] > held)
    panel.press("stop")
    until(lambda: "stopped" in panel.standing.value and "resume" in usable(panel))
    assert "go on with it" in panel.standing.value
    assert panel.run.wait(LIMIT) == "stopped"
    assert panel.errors == []


def test_one_stage_is_launched_alone_and_a_finished_one_is_branched(tiny, place) -> None:
    panel = RunPanel(tiny, place)
    panel.press("next")
    panel.settle()
    first = panel.run
    assert first is not None and first.wait(LIMIT) == "stopped" and first.stages_done() == 1
    panel.press("launch")
    panel.settle()
    assert first.wait(LIMIT) == "finished"
    panel.look()
    names = [button.description for button in panel.branching.row.children]
    assert names == ["Branch after stage 0", "Branch after stage 1", "Branch after stage 2"]
    panel.branching.row.children[1].click()
    assert panel.branching.box.layout.display == "flex"
    panel.branching.changes.value = "optim.lr=1e-3 seed=4"
    panel.branching.go.click()
    assert panel.errors == [] and panel.run is not None and panel.run.id != first.id
    assert panel.run.wait(LIMIT) == "finished"
    said = panel.run.provenance()["forked"]
    assert (said["run"], said["after_stage"]) == (first.id, 1)
    assert said["changes"] == {"optim.lr": [0.01, 0.001], "seed": [0, 4]}


def test_what_cannot_be_branched_is_said(tiny, place) -> None:
    panel = RunPanel(run=sw.train(tiny, place))
    panel.branching.choose(1)
    panel.branching.changes.value = "rack.d_model=32"
    panel.branching.go.click()
    assert "rack.d_model: 32 is not 16" in panel.branching.guard.card.value
    panel.branching.changes.value = "nothing"
    panel.branching.go.click()
    assert "not of the form key=value" in panel.branching.guard.card.value  # below the field
    assert panel.guard.card.value == "" and len(panel.errors) == 2


def test_what_cannot_be_launched_is_said(place) -> None:
    panel = RunPanel("toy", place)
    panel.offer(sw.Experiment.preset("toy").replace(data={"corpus": "text:not there.txt"}), place)
    panel.press("launch")
    panel.settle()
    assert "not there.txt" in panel.guard.card.value and len(panel.errors) == 1
    assert panel.run is None
    assert "nothing is launched" in panel.standing.value


def test_a_launch_that_is_refused_leaves_the_run_that_is_shown(shipped, place) -> None:
    panel = RunPanel("toy", place, run=shipped[0])
    before = panel.standing.value
    panel.offer(sw.Experiment.preset("toy").replace(data={"corpus": "text:not there.txt"}), place)
    panel.press("launch")
    panel.settle()
    assert len(panel.errors) == 1 and panel.standing.value == before
    assert panel.run.path == shipped[0].path


def test_it_takes_a_run_as_the_others_do(shipped) -> None:
    panel = RunPanel(shipped[0])
    assert panel.run.path == shipped[0].path and panel.experiment is None
    assert "Launch" not in [button.description for button in panel.controls.children]
    assert "sw.attach" in panel.code() and panel.errors == []


def test_an_order_of_an_earlier_attempt_is_not_said_of_the_next(tiny, place) -> None:
    """A queued one that was stopped and launched again waits, and has been asked nothing."""
    run = create_run(tiny, place)
    held = take(run.path, SUPERVISOR)
    ask(run.path, "stop")
    status.begin(run.path, "queued", waits_for=["other"], heard=1, through=None)
    assert state_text(run, view_of(run)).startswith("queued, waits for other")
    assert "asked" not in state_text(run, view_of(run))
    ask(run.path, "stop")
    assert ASKED["stop"] in state_text(run, view_of(run))
    held.release()


def test_launch_waits_for_a_form_that_is_right(tiny, place) -> None:
    panel = RunPanel(tiny, place)
    panel.offer(tiny, place, "optim.lr: 'x' is not a number")
    assert usable(panel) == set()
    panel.controls.buttons["launch"].click()
    assert "optim.lr: &#x27;x&#x27; is not a number" in panel.guard.card.value
    panel.offer(tiny, place)
    assert usable(panel) == {"launch", "next"}


def test_a_dead_run_shows_its_last_lines_and_what_to_do(tiny, place, tmp_path) -> None:
    text = tmp_path / "book.txt"
    text.write_text("In the beginning " * 4000)
    exp = tiny.replace(data={"corpus": f"text:{text}"}, budget={"tokens": 10_000_000})
    run = sw.launch(exp, place)
    until(lambda: len(run.metrics()) > 0)
    run.stop()
    run.wait(LIMIT)
    text.write_text("something else <b> " * 5000)
    run.resume()
    assert run.wait(LIMIT) == "failed"
    panel = RunPanel(run=run)
    assert "the corpus has changed since the run began" in panel.standing.value
    assert "its last lines" in panel.standing.value and "Traceback" in panel.standing.value
    assert "stackwise resume" in panel.standing.value
    assert "resume" in usable(panel) and panel.errors == []


@pytest.mark.parametrize("name", ["stages.json", "events.jsonl", "experiment.yaml", "plan.json"])
def test_a_damaged_folder_breaks_nothing(shipped, tmp_path, name) -> None:
    import shutil

    folder = tmp_path / "run"
    shutil.copytree(shipped[0].path, folder)
    (folder / name).write_text("{ half")
    panel = RunPanel(run=sw.Run(folder))
    assert panel.errors == []
    assert name in panel.standing.value


def test_a_sample_is_denoised_step_by_step(shipped) -> None:
    panel = RunPanel(run=shipped[0])
    seen: list[str] = []
    panel.sample.shown.observe(lambda change: seen.append(change["new"]), "value")
    panel.sample.steps.value = 4
    panel.sample.prompt.value = "In <b>the"
    panel.sample.button.click()
    assert panel.sample.settle()
    assert [f"Step {step} of 4" in text for step, text in enumerate(seen)] == [True] * 5
    assert 'data-hidden="64"' in seen[0] and "&lt;</span>" in seen[0]
    assert 'data-hidden="0"' in seen[-1]
    assert panel.sample.text.startswith("In <b>the") and panel.errors == []


def test_axes_are_switched(shipped) -> None:
    panel = RunPanel(run=shipped[0])
    panel.along.value, panel.heat.value = "flops", "grad_norm"
    assert panel.chart is not None
    assert (panel.chart.x, panel.chart.heat) == ("flops", "grad_norm")
    assert panel.errors == []


@pytest.mark.parametrize("part", ["controls", "chart", "stages", "sample", "numbers"])
def test_a_part_can_be_hidden(shipped, part) -> None:
    whole, less = RunPanel(run=shipped[0]), RunPanel(run=shipped[0], hide=[part])
    assert len(less.children) < len(whole.children)
    with pytest.raises(ValueError, match=f"hide: '{part}x' is no part; did you mean '{part}'"):
        RunPanel(hide=[f"{part}x"])


def test_a_button_that_does_nothing_cannot_be_pressed() -> None:
    controls = Controls(lambda name: None, launches=True)
    for state in ("made", "stopped", "failed", "died", "finished", "damaged"):
        controls.show(state, "")
        for name in ("pause", "stop", "stop-now"):
            assert controls.buttons[name].disabled
    controls.show("stale", "")
    assert not controls.buttons["stop-now"].disabled
