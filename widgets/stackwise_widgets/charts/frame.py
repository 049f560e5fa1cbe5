"""Where the four panels of a run lie, and what stands between and over them.

Axes, stage borders with their names, boxes around what trains, and marks of what went wrong. Pure
functions of a view.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stackwise_widgets.charts.panels import (
    HEATS,
    Heat,
    matrix_of,
    memory_unit,
)
from stackwise_widgets.charts.reach import layer_axis, placed, ran_away, rate_axis, reach
from stackwise_widgets.charts.style import (
    BORDER,
    GREEN,
    PINK,
    PLANNED,
    VERMILLION,
    Theme,
    axis,
    plain_layout,
)
from stackwise_widgets.charts.view import ALONG, Along, Mark, Matrix, RunView, StageView
from stackwise_widgets.views.markup import escaped

DOMAINS = {
    "strip": (0.9, 1.0),
    "loss": (0.585, 0.865),
    "heat": (0.27, 0.545),
    "memory": (0.0, 0.225),
}
HEIGHT = 782
MARGIN = {"l": 88, "r": 132, "t": 56, "b": 48}  # at the top: names under plotly's tool bar
MOST_NAMES = 14
MOST_LETTERS = 16


def layout_of(
    view: RunView, x: Along = "steps", heat: Heat = "exit_loss", theme: Theme = "auto"
) -> dict[str, Any]:
    """The layout of a run's picture, `changing` part included."""
    right = 1.012
    return {
        **plain_layout(theme),
        "height": HEIGHT,
        "margin": MARGIN,
        "barmode": "stack",
        "xaxis": axis(ALONG[x], anchor="y4", showspikes=True, spikemode="across",
                      spikethickness=1, spikedash="dot", spikecolor=PLANNED),
        "yaxis": axis("masked", GREEN, domain=DOMAINS["strip"], range=[0, 1.04],
                      tickvals=[0, 0.5, 1]),
        "yaxis5": axis("rate (dash)", PINK, overlaying="y", side="right", showgrid=False),
        "yaxis2": axis("nats per token", domain=DOMAINS["loss"], autorange=True),
        "yaxis3": axis("layer", domain=DOMAINS["heat"], type="category", showgrid=False),
        "yaxis4": axis("memory", domain=DOMAINS["memory"], rangemode="tozero", autorange=True),
        "legend": _legend(right, DOMAINS["loss"][1]),
        "legend2": {**_legend(right, DOMAINS["memory"][1]), "traceorder": "reversed"},
        **changing(view, x, heat),
    }  # fmt: skip


def _legend(x: float, y: float) -> dict[str, Any]:
    return {"x": x, "y": y, "xanchor": "left", "yanchor": "top", "bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"size": 11}, "itemwidth": 30, "tracegroupgap": 0}  # fmt: skip


def changing(view: RunView, x: Along, heat: Heat) -> dict[str, Any]:
    """The part of the layout that follows what happened: shapes, words, ticks, kind of axis."""
    matrix = matrix_of(view, heat)
    return {
        "shapes": [*_borders(view, x), *_boxes(view, matrix, x), *_lines(view, x)],
        "annotations": [
            *_names(view, x), *_marks(view, x), *_titles(view, heat, matrix), *_missing(view)
        ],
        "xaxis.range": reach(view, x),
        **rate_axis(view),
        "yaxis2.type": "log" if ran_away(view) else "linear",
        "yaxis4.title.text": f"memory, {memory_unit(view)[1]}",
        **layer_axis(matrix),
    }  # fmt: skip


def _borders(view: RunView, x: Along) -> list[dict[str, Any]]:
    """A line at every end of a stage: solid where it was reached, dotted where it is planned.

    One path for all of a kind, that leaves out what stands between the panels.
    """
    out = []
    for done, colour, dash in ((True, BORDER, "solid"), (False, PLANNED, "dot")):
        ends = [stage.end[x] for stage in placed(view, x) if (stage.state == "done") == done]
        path = " ".join(f"M{end!r},{low}L{end!r},{high}" for end in ends
                        for low, high in DOMAINS.values())  # fmt: skip
        if ends:
            out.append({"type": "path", "name": "ends reached" if done else "ends planned",
                        "xref": "x", "yref": "paper", "path": path,
                        "line": {"width": 1, "color": colour, "dash": dash}})  # fmt: skip
    return out


def _names(view: RunView, x: Along) -> list[dict[str, Any]]:
    """Names of stages over their middle, as far as there is room."""
    stages = placed(view, x)
    widest = stages[-1].end[x] - stages[0].begin[x] if stages else 0.0
    every = -(-len(stages) // MOST_NAMES) or 1
    out = []
    for stage in stages[::every]:
        share = (stage.end[x] - stage.begin[x]) * every / widest if widest > 0 else 0.0
        text = stage_text(stage, max(3, int(share * 95)))
        out.append({"x": (stage.begin[x] + stage.end[x]) / 2, "y": 1.0, "xref": "x",
                    "yref": "paper", "yanchor": "bottom", "showarrow": False,
                    "text": escaped(text), "hovertext": escaped(_hover(stage)),
                    "font": {"size": 11}})  # fmt: skip
    return out


def stage_text(stage: StageView, letters: int) -> str:
    """A stage's name, with its band if it has one, cut to so many letters."""
    low, high = stage.band
    band = "" if (low, high) == (0.0, 1.0) else f" {low:.2g}–{high:.2g}"
    if len(stage.name + band) <= letters:
        return stage.name + band
    name = stage.name
    return name if len(name) <= letters else f"{name[: max(1, letters - 1)]}…"


def _hover(stage: StageView) -> str:
    low, high = stage.band
    return (
        f"stage {stage.number}, {stage.name}: trains {', '.join(stage.active) or 'no stack'}; "
        f"masked fraction {low:g} to {high:g}; {stage.state}"
    )


def _boxes(view: RunView, matrix: Matrix | None, x: Along) -> list[dict[str, Any]]:
    """Around the layers that train in each stage, as one path."""
    if matrix is None:
        return []
    boxes = []
    for stage in placed(view, x):
        begin, end = stage.begin[x], stage.end[x]
        active = [name.partition(".")[0] in stage.active for name in matrix.rows]
        edges = np.flatnonzero(np.diff(np.array([False, *active, False]).astype(int)))
        for low, high in edges.reshape(-1, 2) - 0.5:
            boxes.append(f"M{begin!r},{low}L{end!r},{low}L{end!r},{high}L{begin!r},{high}Z")
    if not boxes:
        return []
    return [{"type": "path", "name": "trains", "xref": "x", "yref": "y3", "path": " ".join(boxes),
             "line": {"color": VERMILLION, "width": 1.3}}]  # fmt: skip


def _lines(view: RunView, x: Along) -> list[dict[str, Any]]:
    low, high = DOMAINS["loss"]
    return [
        {"type": "line", "name": "mark", "xref": "x", "yref": "paper", "x0": mark.at[x],
         "x1": mark.at[x],
         "y0": low, "y1": high, "line": {"color": VERMILLION, "width": 2, "dash": "dash"}}
        for mark in _shown(view.marks)
    ]  # fmt: skip


def _marks(view: RunView, x: Along) -> list[dict[str, Any]]:
    """What went wrong, in words, each a line lower than the one before."""
    last = max((s.end[x] for s in placed(view, x)), default=0.0)
    return [
        {"x": mark.at[x], "y": DOMAINS["loss"][1], "xref": "x", "yref": "paper", "yanchor": "top",
         "yshift": -2 - 18 * number, "showarrow": False, "text": f"<b>{escaped(mark.text)}</b>",
         "xanchor": "right" if mark.at[x] > last / 2 else "left",
         "font": {"size": 12, "color": VERMILLION}}
        for number, mark in enumerate(_shown(view.marks))
    ]  # fmt: skip


def _shown(marks: tuple[Mark, ...]) -> tuple[Mark, ...]:
    return marks[:6]


def _titles(view: RunView, heat: Heat, matrix: Matrix | None) -> list[dict[str, Any]]:
    """What each panel shows, over its left end."""
    share = "" if view.whole else " (of each stage's own noise band)"
    kind = "" if view.is_likelihood else " (mlm: no likelihood)"
    layers = HEATS[heat] + (f", nats per token{share}" if heat == "exit_loss" else "")
    texts = {"loss": f"loss{share or kind}", "heat": f"{layers}; boxed: trains", "memory": "memory"}
    if matrix is None:
        none = "no look by depth yet" if heat == "exit_loss" else "no gradient norms yet"
        texts["heat"] = f"{HEATS[heat]}: {none}"
    return [
        {"x": 0, "y": DOMAINS[panel][1], "xref": "paper", "yref": "paper", "xanchor": "left",
         "yanchor": "bottom", "showarrow": False, "text": text, "font": {"size": 12}}
        for panel, text in texts.items()
    ]  # fmt: skip


def _missing(view: RunView) -> list[dict[str, Any]]:
    if view.problem is None:
        return []
    return [{"x": 0, "y": 0, "xref": "paper", "yref": "paper", "xanchor": "left", "yshift": -46,
             "yanchor": "bottom", "showarrow": False, "text": escaped(view.problem[:160]),
             "font": {"size": 11, "color": VERMILLION}}]  # fmt: skip
