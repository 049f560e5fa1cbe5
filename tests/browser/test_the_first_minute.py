"""A newcomer's first minute: open the notebook, launch what is filled in, see a chart move.

From a click to a curve that grew, eight seconds are allowed where the process has to be started
first. Where it was kept ready two are aimed at; twice as many are allowed here, since the machines
that run these tests are shared.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .lab import Lab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_workbench.ipynb"
COLD = "from stackwise_widgets import Workbench\nbench = Workbench(warm=False)\nbench"
CURVE = ".js-plotly-plot .cartesianlayer .scatterlayer path.js-line"
READY = (
    "any(pair.poll() is None for pair in "
    "__import__('stackwise.detached.warm', fromlist=['x'])._ready)"
)


@pytest.mark.parametrize(("warm", "seconds"), [(True, 4.0), (False, 8.0)], ids=["warm", "cold"])
def test_a_run_that_is_launched_moves(lab: Lab, warm: bool, seconds: float) -> None:
    lab.open(lab.bring(NOTEBOOK) if warm else lab.write("cold.ipynb", COLD))
    cell = 1 if warm else 0
    lab.run(cell)
    lab.wait_for("fits this machine", within=30)
    lab.wait_for("finished", cell=cell)  # a run that ships fills the panels
    assert lab.value(READY) == str(warm)
    if warm:
        time.sleep(4)  # what a person takes to look around; the process imports meanwhile
    lab.picture("opened")
    began = time.monotonic()
    lab.click("Launch")
    lab.wait_for("running, step", within=30)
    lab.page.locator(CURVE).first.wait_for(state="attached")
    drawn = time.monotonic() - began
    lab.wait_for_change(lab.page.locator(".js-plotly-plot .scatterlayer").nth(1), within=20)
    print(f"{'warm' if warm else 'cold'}: a curve after {drawn:.1f} s")
    assert drawn < seconds
    lab.picture("moving")
    assert lab.value("bench.errors") == "[]"


def test_panels_are_filled_before_anything_is_launched(lab: Lab) -> None:
    lab.size(1280, 1800)
    lab.open(lab.bring(NOTEBOOK))
    lab.run(1)
    lab.wait_for("fits this machine", within=30)
    for name, seen in (
        ("Run", "gradient norm"),
        ("Compare", "comparable"),
        ("Inspect", "head"),
        ("Teach", "mask"),
        ("Design", "Stages"),
    ):
        lab.page.get_by_role("tab", name=name, exact=True).click()
        lab.output(1).get_by_text(seen).locator("visible=true").first.wait_for(timeout=30_000)
        lab.picture(name)
    assert lab.value("bench.errors") == "[]"
