"""A newcomer's first minute: open the notebook, launch what is filled in, see a chart move."""

from __future__ import annotations

import time
from pathlib import Path

from .lab import Lab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_workbench.ipynb"
COLD_SECONDS, WARM_SECONDS = 8.0, 2.0

CURVE = ".js-plotly-plot .scatterlayer"


def test_a_run_that_is_launched_moves(lab: Lab) -> None:
    lab.open(lab.bring(NOTEBOOK))
    began = time.monotonic()
    lab.run(1)
    lab.wait_for("fits this machine", within=30)
    opened = time.monotonic() - began
    lab.size(1280, 1600)
    lab.picture("design")
    time.sleep(5)
    began = time.monotonic()
    lab.click("Launch")
    lab.wait_for("running, step", within=30)
    said = time.monotonic() - began
    chart = lab.page.locator(CURVE).first
    chart.wait_for()
    first = time.monotonic() - began
    lab.wait_for_change(chart, within=20)
    print(f"opened {opened:.1f} s; running {said:.1f} s; chart {first:.1f}")
    lab.picture("run")
    time.sleep(10)
    lab.picture("run-later")
    assert lab.value("bench.errors") == "[]"
    lab.theme("dark")
    lab.picture("run-dark")
    lab.click("Stop and save")
    lab.wait_for("stopped", within=30)
    lab.page.get_by_role("tab", name="Design", exact=True).click()
    lab.picture("design-dark")
    lab.theme("light")
    lab.size(900, 1600)
    lab.picture("design-900")
    lab.page.get_by_role("tab", name="Run", exact=True).click()
    lab.picture("run-900")
    lab.restart()
    lab.picture("restarted")
