"""Workbench: what Design says is what Launch trains; states open prepared, with controls hidden."""

from __future__ import annotations

import time
from typing import Literal

import pytest

import stackwise as sw
from stackwise.schedules import SCHEDULES, Schedule, TimeSchedule
from stackwise_widgets import Workbench


@pytest.fixture
def bench(tiny, place):
    made = Workbench(tiny, place, warm=False)
    assert made.design.settle()
    yield made
    for panel in made.made.values():
        panel.close()
    assert made.errors == []


def test_it_opens_filled(bench, shipped) -> None:
    assert bench.shown == ["Design", "Run", "Compare", "Inspect", "Teach"]
    assert bench.run is not None and bench.run.id in {run.id for run in shipped}
    assert bench.run_panel.chart is not None
    assert f"Launch trains {bench.experiment}" in bench.offered.value
    assert "fits this machine" in bench.offered.value


def test_it_launches_what_design_says(bench) -> None:
    bench.design.form.write("seed", "5")
    bench.design.settle()
    bench.run_panel.press("launch")
    assert bench.run_panel.settle()
    assert bench.run.experiment == bench.experiment
    assert bench.run.experiment.seed == 5
    assert bench.shown[bench.tab.selected_index] == "Run"
    assert bench.run.wait(90) == "finished"


def test_launch_says_why_it_waits(bench) -> None:
    bench.design.form.write("optim.lr", "fast")
    bench.design.settle()
    assert bench.run_panel.controls.buttons["launch"].disabled
    assert "optim.lr: &#x27;fast&#x27; is not a number" in bench.offered.value
    bench.design.form.write("optim.lr", "0.001")
    bench.design.settle()
    assert not bench.run_panel.controls.buttons["launch"].disabled


@pytest.mark.parametrize("name", ["Compare", "Inspect", "Teach"])
def test_every_panel_opens(bench, name) -> None:
    bench.go_to(name)
    assert bench.boxes[name].children and bench.panel.errors == []
    assert isinstance(bench.code(), str) and bench.code()


class Sqrt(sw.Params):
    name: Literal["sqrt"] = "sqrt"


def sqrt(params: Sqrt) -> TimeSchedule:
    return TimeSchedule(lambda t: 1 - t**0.5, lambda t: 0.5 / t, lambda lam: lam**2)


def test_what_no_launch_can_train_is_said_before(bench, monkeypatch) -> None:
    launch = bench.run_panel.controls.buttons["launch"]
    bench.design.form.use("405b")
    assert bench.design.settle() and launch.disabled
    assert "It cannot be launched: rack: training takes" in bench.offered.value
    assert "trunk=streamed" not in bench.offered.value  # it is by now
    bench.design.hardware.value = "h200"
    assert bench.design.settle() and not launch.disabled  # not for this machine to say
    bench.design.form.use("toy")
    monkeypatch.setitem(SCHEDULES, "sqrt", Schedule(sqrt, Sqrt))
    bench.design.form.refresh()
    bench.design.form.write("masking.schedule", "sqrt")
    assert bench.design.settle() and launch.disabled
    assert "is known to this process alone" in bench.offered.value
    bench.design.form.write("masking.schedule", "cosine")
    assert bench.design.settle() and not launch.disabled


def test_a_run_launched_after_inspect_was_opened_is_looked_into(bench) -> None:
    bench.go_to("Inspect")
    inspect = bench.panel
    shipped = set(inspect.choice.options)
    bench.go_to("Design")
    bench.run_panel.press("launch")
    assert bench.run_panel.settle() and bench.errors == []
    assert inspect.run.path == bench.run.path and inspect.choice.value == bench.run.id
    assert set(inspect.choice.options) == {bench.run.id, *shipped}
    assert bench.run.wait(90) == "finished" and inspect.wait(60)


def test_teach_is_of_what_is_designed(bench) -> None:
    bench.go_to("Teach")
    first = bench.panel
    bench.go_to("Design")
    bench.go_to("Teach")
    assert bench.panel is first
    bench.design.form.write("curriculum", "right_to_left")
    bench.go_to("Design")
    bench.go_to("Teach")
    assert bench.panel.experiment.curriculum.choice == "right_to_left"
    assert bench.panel.settle() and bench.boxes["Teach"].children == (bench.panel,)
    assert bench.errors == []


def test_a_state_opens_as_it_was_saved_with_controls_hidden(bench, tmp_path) -> None:
    bench.design.form.write("optim.lr", "0.003")
    bench.design.text.value = "a text"
    bench.design.settle()
    bench.go_to("Run")
    bench.save_state(tmp_path / "lesson.yaml", hide=["Compare", "optim", "run.sample"])
    again = Workbench(state=tmp_path / "lesson.yaml", hide=["Teach"], warm=False)
    assert again.design.settle() and again.errors == []
    assert again.experiment == bench.experiment
    assert again.design.placement == bench.design.placement
    assert again.design.text.value == "a text"
    assert again.run.path == bench.run.path
    assert again.shown == ["Design", "Run", "Inspect"]
    assert again.shown[again.tab.selected_index] == "Run"
    with pytest.raises(KeyError):
        again.design.form.field("optim.lr")
    assert again.run_panel.sample not in again.run_panel.children


def test_a_state_that_is_wrong_names_its_key(tmp_path) -> None:
    file = tmp_path / "lesson.yaml"
    file.write_text("experiment: {optim: {lr: fast}}\n")
    with pytest.raises(sw.ExperimentError, match=r"optim\.lr: 'fast' is not a number"):
        Workbench(state=file, warm=False)
    file.write_text("panle: Run\n")
    with pytest.raises(sw.ExperimentError, match=r"panle: unknown key; did you mean 'panel'\?"):
        Workbench(state=file, warm=False)


@pytest.mark.parametrize(
    ("hide", "said"),
    [
        ("optin", "'optin' is no panel, no part of one and no knob; did you mean 'optim'?"),
        ("run.smaple", "'smaple' is no part; did you mean 'sample'?"),
        (["Design", "Run", "Compare", "Inspect", "Teach"], "names every panel"),
    ],
)
def test_a_slip_in_what_is_hidden_is_told(hide, said) -> None:
    with pytest.raises(ValueError) as error:
        Workbench(hide=hide, warm=False)
    assert said in str(error.value)


def test_a_warm_process_is_kept_for_the_first_launch(tiny, place) -> None:
    from stackwise.detached import warm

    bench = Workbench(tiny, place)
    (pair,) = [child for child in warm._ready if child.poll() is None]
    bench.run_panel.press("launch")
    assert bench.run_panel.settle() and bench.errors == []
    assert pair not in warm._ready
    assert bench.run.wait(90) == "finished"
    until = time.monotonic() + 30
    while pair.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
