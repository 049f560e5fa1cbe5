"""The picture of a finished run, as a plain plotly figure, and the numbers behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from stackwise_widgets.charts.frame import DOMAINS, layout_of
from stackwise_widgets.charts.panels import HEAT_UNITS, Heat, traces_of
from stackwise_widgets.charts.style import Theme
from stackwise_widgets.charts.view import ALONG, Along, Matrix, RunView, Series


def run_figure(
    view: RunView, x: Along = "steps", heat: Heat = "exit_loss", theme: Theme = "auto"
) -> go.Figure:
    """Masked fraction, loss, layers x steps and memory over one axis.

    Args:
        view: Of `view_of(run)`.
        x: What runs along the axis.
        heat: What the layers x steps panel shows.
        theme: `auto` can be read on a light page as on a dark one.

    Raises:
        ValueError: If `x` or `heat` is none of those there are.
    """
    check(x, heat)
    traces = traces_of(view, x, heat)
    traces["heat"]["colorbar"] = colour_bar(heat)
    return go.Figure(data=list(traces.values()), layout=nested(layout_of(view, x, heat, theme)))


def check(x: str, heat: str) -> None:
    """Raise ValueError, with what there is, for an axis or a matrix that there is not."""
    if x not in ALONG:
        raise ValueError(f"x: {x!r} is not one of {', '.join(ALONG)}")
    if heat not in HEAT_UNITS:
        raise ValueError(f"heat: {heat!r} is not one of {', '.join(HEAT_UNITS)}")


def colour_bar(heat: Heat) -> dict[str, Any]:
    """Beside the layers x steps panel, as high as it is."""
    low, high = DOMAINS["heat"]
    title = {"text": HEAT_UNITS[heat], "font": {"size": 11}, "side": "right"}
    return {"x": 1.012, "xanchor": "left", "y": (low + high) / 2, "len": high - low,
            "thickness": 12, "outlinewidth": 0, "title": title, "ypad": 0, "nticks": 6,
            "tickprefix": "" if heat == "exit_loss" else "10<sup>",
            "ticksuffix": "" if heat == "exit_loss" else "</sup>",
            "tickfont": {"size": 11}}  # fmt: skip


def nested(layout: dict[str, Any]) -> dict[str, Any]:
    """A layout whose dotted keys are put in their places."""
    out: dict[str, Any] = {}
    for key, value in layout.items():
        *sections, last = key.split(".")
        place = out
        for section in sections:
            place[section] = place = dict(place.get(section, {}))
        place[last] = value
    return out


def run_table(view: RunView) -> pd.DataFrame:
    """The numbers that the picture draws, one row each.

    Returns:
        Columns: `panel` (masked, rate, loss, smooth, heldout, exit_loss, grad_norm, predicted,
        measured), `row` (a layer, a category of memory, or empty), steps, tokens, flops, seconds,
        `value`. Cells of a matrix lie at the end of their column, memory at its stage's end. Gaps
        are left out, numbers that are none are not.
    """
    frames = [
        _curve(view.masked, "masked"), _curve(view.rate, "rate"), _curve(view.loss, "loss"),
        _curve(view.smooth, "smooth"), _curve(view.heldout, "heldout"),
        _cells(view.exits, "exit_loss"), _cells(view.norms, "grad_norm"), _memory(view),
    ]  # fmt: skip
    full = [frame for frame in frames if len(frame)]
    columns = ["panel", "row", *ALONG, "value"]
    return pd.concat(full, ignore_index=True) if full else pd.DataFrame(columns=columns)


def _curve(series: Series, panel: str) -> pd.DataFrame:
    at: dict[str, Any] = {unit: series.at.along(unit) for unit in ALONG}
    frame = pd.DataFrame({"panel": panel, "row": "", **at, "value": series.value})
    return frame[frame["value"].notna()]


def _cells(matrix: Matrix | None, panel: str) -> pd.DataFrame:
    if matrix is None:
        return pd.DataFrame()
    row, column = np.nonzero(np.isfinite(matrix.value) | matrix.broken)
    at: dict[str, Any] = {unit: matrix.edges.along(unit)[column + 1] for unit in ALONG}
    names = [matrix.rows[place] for place in row]
    return pd.DataFrame({"panel": panel, "row": names, **at, "value": matrix.value[row, column]})


def _memory(view: RunView) -> pd.DataFrame:
    rows = []
    for stage in view.stages:
        predicted = {**stage.predicted, "peak": stage.predicted_peak}
        measured = {**stage.measured, "peak": stage.measured_peak}
        for panel, found in (("predicted", predicted), ("measured", measured)):
            rows += [{"panel": panel, "row": kind, **dict(stage.end), "value": count}
                     for kind, count in found.items() if count is not None]  # fmt: skip
    return pd.DataFrame(rows)
