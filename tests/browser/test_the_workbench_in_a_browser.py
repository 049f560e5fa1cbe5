"""The workbench as a person uses it: busy cells, reloads, restarts, slips, keys, widths, themes."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .lab import Lab
from .notebooks import HELD
from .servers import Served

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_workbench.ipynb"
BENCH = "from stackwise_widgets import Workbench\nbench = Workbench()\nbench"
OWN = """
import stackwise as sw

def outside_in(exp):
    ids = sw.stack_ids(exp.rack)
    yield sw.Stage(path=(ids[0], ids[-1]))
    for n in range(2, len(ids)):
        yield sw.Stage(path=(*ids[:n], ids[-1]), active=(ids[n - 1],), embedding=False)

sw.CURRICULA["outside_in"] = outside_in
"""
CURVES = ".js-plotly-plot .scatterlayer"
SHOWN = """(plot) => ({
  end: plot.layout.xaxis.range[1],
  names: plot.layout.annotations.map((note) => note.text),
  borders: plot.layout.shapes.map((shape) => shape.path),
  looks: [...plot.data.find((trace) => trace.name === 'held-out').x],
  layers: plot.layout.yaxis3.categoryarray,
  memory: [...plot.data.find((trace) => trace.name === 'weights').x],
})"""
DRAWN = """(lambda figure: {
  'end': float(figure.layout.xaxis.range[1]),
  'names': [note.text for note in figure.layout.annotations],
  'borders': [shape.path for shape in figure.layout.shapes],
  'looks': next(figure.select_traces({'name': 'held-out'})).x.tolist(),
  'layers': list(figure.layout.yaxis3.categoryarray),
  'memory': next(figure.select_traces({'name': 'weights'})).x.tolist(),
})(bench.run_panel.chart.figure)"""
RUNNING = re.compile(r"running, step [0-9]+")


@pytest.fixture
def opened(lab: Lab) -> Lab:
    lab.open(lab.write("bench.ipynb", BENCH, HELD))
    lab.run(0)
    lab.wait_for("fits this machine", within=30)
    return lab


def launch(lab: Lab) -> None:
    lab.click("Launch")
    lab.wait_for(RUNNING, within=30)


def steps(lab: Lab) -> int:
    return int(lab.value("bench.run.status().get('step', 0)"))


def shows_the_run(lab: Lab, cell: int = 0, within: float = 10) -> None:
    """Until axis, stages, borders, looks, layers and memory are those that were drawn last."""
    plot, until = lab.output(cell).locator(".js-plotly-plot").first, time.monotonic() + within
    while (shown := plot.evaluate(SHOWN)) != (drawn := ast.literal_eval(lab.value(DRAWN))):
        assert time.monotonic() < until, f"{shown}\n\nand not\n\n{drawn}"


def moves(lab: Lab, cell: int = 0) -> None:
    lab.wait_for_change(lab.output(cell).locator(CURVES).nth(1), within=20)


def test_while_a_cell_is_busy_the_run_goes_on_and_is_shown(opened: Lab) -> None:
    launch(opened)
    opened.run(1, wait=False)
    opened.page.wait_for_function("() => document.body.innerText.includes('[*]')")
    opened.wait_until_busy()
    moves(opened)
    opened.click("Stop and save")  # answered after the cell, and not lost
    opened.release()
    opened.wait_for("stopped", cell=0, within=30)
    assert opened.value("bench.errors") == "[]"


def test_a_reload_in_mid_run_loses_nothing(opened: Lab) -> None:
    launch(opened)
    opened.save()
    opened.reload()
    moves(opened)
    shows_the_run(opened)
    opened.click("Stop and save")
    opened.wait_for("stopped", cell=0, within=30)


def test_the_charts_tool_bar_covers_no_name(opened: Lab) -> None:
    opened.page.get_by_role("tab", name="Run", exact=True).click()
    plot = opened.output(0).locator(".js-plotly-plot").first
    plot.hover()
    bar = plot.locator(".modebar").bounding_box()
    names = [it.bounding_box() for it in plot.locator(".annotation-text-g").all()]
    assert len(names) > 4
    assert bar["y"] + bar["height"] <= min(name["y"] for name in names)


def test_after_a_restart_the_cell_shows_the_run_again(opened: Lab) -> None:
    launch(opened)
    moves(opened)
    before = steps(opened)
    opened.restart()
    opened.picture("gone")
    opened.run(0)
    opened.wait_for(RUNNING, within=30)
    moves(opened)
    assert steps(opened) > before
    assert int(opened.value("int(bench.run.metrics()['step'].iloc[0])")) == 1


def test_a_curriculum_of_the_cell_above_is_chosen_and_launched(lab: Lab) -> None:
    lab.open(lab.write("own.ipynb", BENCH, OWN))
    lab.run(0)
    lab.wait_for("fits this machine", within=30)
    lab.run(1)  # the form is there already: it looks again after each cell
    lab.choose("curriculum", "outside_in")
    lab.wait_for_value("bench.experiment.curriculum.choice", "'outside_in'")
    lab.wait_for("Launch trains toy · outside_in")
    launch(lab)
    moves(lab)
    assert "outside_in" in lab.value("bench.run.id")
    lab.click("Stop and save")
    lab.wait_for("stopped", cell=0, within=30)
    assert lab.value("bench.errors") == "[]"


def test_a_slip_is_said_at_its_field_and_launch_waits(opened: Lab) -> None:
    opened.fill("seed", "many")
    opened.wait_for("is not a whole number")
    opened.wait_for("Launch waits until the form is right")
    assert opened.button("Launch").is_disabled()
    opened.picture("slip")
    opened.fill("seed", "3")
    opened.wait_for("Launch trains")
    assert opened.button("Launch").is_enabled()
    assert opened.value("bench.experiment.seed") == "3"


def test_a_run_is_paused_stopped_and_goes_on(opened: Lab) -> None:
    launch(opened)
    opened.click("Pause")
    opened.wait_for("paused", cell=0)
    held = steps(opened)
    opened.click("Go on")
    opened.wait_for(RUNNING)
    opened.click("Stop and save")
    opened.wait_for("go on with it", within=30)
    stopped = steps(opened)
    assert stopped > held
    opened.click("Go on")
    opened.wait_for(RUNNING, within=30)
    moves(opened)
    assert steps(opened) > stopped
    opened.click("Stop now")
    opened.wait_for("stopped", cell=0, within=30)
    assert opened.value("bench.errors") == "[]"


def test_the_keyboard_is_enough(opened: Lab) -> None:
    opened.page.locator(".sw-panel[data-sw-ready]").first.wait_for(state="attached")
    opened.go_to(0)
    opened.tab_to("Launch")
    opened.tab_to("curriculum")
    opened.press("ArrowDown")
    opened.wait_for_value("bench.experiment.curriculum.choice", "'left_to_right'")
    assert opened.page.locator(".jp-Notebook .jp-Cell").count() == 2
    for _ in range(60):
        if opened.focused == "Launch":
            break
        opened.press("Shift+Tab")
    opened.press("Enter")
    opened.wait_for(RUNNING, within=30)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [(900, 1700), (1400, 1700)], ids=["900px", "1400px"])
def test_it_is_read_at_any_width_in_any_theme(opened: Lab, theme: str) -> None:
    opened.theme(theme)
    for name in ("Design", "Run", "Compare", "Inspect", "Teach"):
        opened.page.get_by_role("tab", name=name, exact=True).click()
        opened.page.wait_for_timeout(1500)  # for the pictures alone
        opened.picture(f"{name}-{theme}")
        wide = [it for it in opened.scrolls_sideways if "sw-scroll" not in it]  # a table may
        assert wide == [], name
    assert opened.value("bench.errors") == "[]"


@pytest.mark.parametrize("width", [900, 1400])
def test_nothing_is_cut_off_beside_the_list_of_files(lab: Lab, width: int) -> None:
    lab.size(width, 1700)
    lab.open(lab.write("bench.ipynb", BENCH), whole=True)
    lab.run(0)
    lab.wait_for("fits this machine", within=30)
    for name in ("Design", "Run", "Compare", "Inspect", "Teach"):
        lab.page.get_by_role("tab", name=name, exact=True).click()
        lab.page.wait_for_timeout(1500)
        lab.picture(f"{name}-beside-files")
        wide = [it for it in lab.scrolls_sideways if "sw-scroll" not in it]
        assert wide == [], name


def test_voila_serves_it_as_an_app(voila: Callable[[Path], Served], page) -> None:
    voila(NOTEBOOK)
    page.get_by_role("button", name="Launch", exact=True).wait_for(timeout=60_000)
    page.get_by_text("fits this machine").first.wait_for(timeout=30_000)
    page.get_by_role("button", name="Launch", exact=True).click()
    page.get_by_text(RUNNING).first.wait_for(timeout=30_000)
