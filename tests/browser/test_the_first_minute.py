"""A newcomer's first minute: open the notebook, launch what is filled in, see a chart that moves."""

from __future__ import annotations

import time
from pathlib import Path

from .lab import Lab

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_workbench.ipynb"
STEPS = "len(bench.run.metrics())"


def test_a_launched_run_moves(lab: Lab) -> None:
    lab.open(lab.bring(NOTEBOOK))
    began = time.monotonic()
    lab.run(1)
    lab.wait_for("Launch", cell=1)
    lab.wait_for("fits this machine", within=30)
    lab.picture("design")
    opened = time.monotonic() - began
    time.sleep(5)
    began = time.monotonic()
    lab.click("Launch")
    lab.wait_for("running, step", within=30)
    said = time.monotonic() - began
    chart = lab.page.locator(".js-plotly-plot .scatterlayer").first
    chart.wait_for()
    first = time.monotonic() - began
    lab.wait_for_change(chart, within=20)
    print(
        f"opened {opened:.1f} s; running {said:.1f} s; chart there {first:.1f}, moved {time.monotonic() - began:.1f}"
    )
    lab.picture("run")
    time.sleep(6)
    lab.picture("run-later")
    assert lab.value("bench.errors") == "[]"
    lab.click("Stop and save")
    lab.wait_for("stopped", within=30)
    lab.picture("stopped")
