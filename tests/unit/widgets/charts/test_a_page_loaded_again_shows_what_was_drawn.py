"""A page that is loaded again begins with what was drawn last, of the run that was drawn last."""

from __future__ import annotations

import base64
import threading
from dataclasses import replace

import numpy as np
import pytest

from stackwise_widgets.charts import LiveChart, run_figure, view_of
from stackwise_widgets.charts.live import unpacked


def plain(value):
    """What the page makes of a value: numbers in arrays."""
    if isinstance(value, dict) and "buffer" in value:
        return np.frombuffer(value["buffer"], value["dtype"]).tolist()
    if isinstance(value, dict) and "bdata" in value:
        if "shape" in value:
            return unpacked(value).tolist()
        return np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def same(a, b) -> bool:
    return repr(plain(a)) == repr(plain(b))


@pytest.fixture
def chart(shipped, made, attempt):
    """It showed a finished run, then one that is under way, at two of its steps."""
    chart = LiveChart(view_of(shipped["right_to_left"]))
    run = made(steps=(6, 40))
    for first, last in ((1, 8), (9, 20)):
        attempt(run, first, last, close="stopped")
        assert chart.update(replace(view_of(run), version=last), now=float(last))
    return chart


def test_the_state_that_a_page_reads_is_what_was_drawn(chart) -> None:
    state, shown = chart.figure.get_state(), chart.figure.to_dict()
    assert same(state["_widget_layout"], shown["layout"])
    assert len(state["_widget_data"]) == len(shown["data"])
    for mine, theirs in zip(state["_widget_data"], shown["data"], strict=True):
        assert {key for key in mine if key != "uid"} == {key for key in theirs if key != "uid"}
        assert all(same(mine[key], theirs[key]) for key in theirs if key != "uid")


def test_the_state_is_the_new_runs_in_range_borders_and_memory(chart) -> None:
    state, view = chart.figure.get_state(), chart.view
    new = run_figure(view).layout
    assert tuple(state["_widget_layout"]["xaxis"]["range"]) == new.xaxis.range == (0, 46.184)
    assert same(state["_widget_layout"]["shapes"], new.to_plotly_json()["shapes"])
    assert state["_widget_layout"]["yaxis4"]["title"]["text"] == "memory, KiB"
    names = [note["text"] for note in state["_widget_layout"]["annotations"]]
    assert "stage0" in names and "stage1" in names
    heldout = plain(state["_widget_data"][chart.names.index("heldout")])
    assert np.nanmax(heldout["x"]) == view.heldout.at.steps[-1] == 20


def test_no_page_reads_half_a_change(chart) -> None:
    found: list[dict] = []
    reader = threading.Thread(target=lambda: found.append(chart.figure.get_state()))
    with chart.figure.drawing:
        reader.start()
        reader.join(0.05)
        assert not found
    reader.join(10)
    assert found


def test_another_run_is_drawn_at_once_and_unzoomed(chart, shipped) -> None:
    chart.figure.layout.yaxis2.range = [1.0, 1.1]  # as the page says that a reader zoomed
    chart.figure.layout.xaxis.range = [3, 4]
    view = replace(view_of(shipped["grow"]), state=chart.view.state)
    assert chart.update(view, now=chart.drawn_at + 0.01)
    assert chart.figure.layout.yaxis2.autorange is True
    assert chart.figure.layout.xaxis.range == run_figure(view).layout.xaxis.range
