"""Workbench: what Design says is what Launch trains; states open prepared, with controls hidden."""

from __future__ import annotations

import time

import pytest

import stackwise as sw
from stackwise_widgets import Workbench


@pytest.fixture
def bench(tiny, place):
    made = Workbench(tiny, place, warm=False)
    assert made.design.settle()
    yield made
    made.design.close()
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
        ("optin", "'optin' is no knob"),
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
