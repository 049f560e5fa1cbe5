"""The picture of a run as plotly traces: four panels over one x axis. Pure functions of a view.

From the top: masked fraction and learning rate; loss, with what went wrong; layers x steps; memory
by category, predicted and measured. `frame.py` lays them out; `live.py` and `finished.py` draw.
Every trace is always there, if need be empty, and always in the same place.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from stackwise_widgets.charts.reach import rows_said
from stackwise_widgets.charts.style import (
    BLUE,
    GREEN,
    HEAT,
    KIND_COLOURS,
    KIND_PATTERNS,
    KINDS,
    PINK,
    VERMILLION,
    byte_unit,
    mark_size,
)
from stackwise_widgets.charts.view import Along, Matrix, Numbers, RunView, Series, StageView
from stackwise_widgets.views.markup import escaped

Heat = Literal["exit_loss", "grad_norm"]
HEATS: dict[str, str] = {"exit_loss": "held-out loss by exit", "grad_norm": "gradient norm"}
HEAT_UNITS = {"exit_loss": "nats per token", "grad_norm": "norm"}
Traces = dict[str, dict[str, Any]]


def traces_of(view: RunView, x: Along = "steps", heat: Heat = "exit_loss") -> Traces:
    """Every trace by name, in the order in which they lie over each other."""
    return {
        **_strip(view, x),
        **_loss(view, x),
        **_heat(matrix_of(view, heat), x, heat),
        **_memory(view, x),
    }


def matrix_of(view: RunView, heat: Heat) -> Matrix | None:
    """What the layers x steps panel shows."""
    return view.exits if heat == "exit_loss" else view.norms


def _line(series: Series, x: Along, axis: str, name: str, **more: Any) -> dict[str, Any]:
    line = {"type": "scatter", "name": name, "mode": "lines", "yaxis": axis, "showlegend": False}
    if not len(series.value):  # plotly makes no axes for a trace without a point
        return {**line, "x": np.zeros(1), "y": np.full(1, np.nan), **more}
    return {**line, "x": series.at.along(x), "y": series.value, **more}


def _strip(view: RunView, x: Along) -> Traces:
    masked = _line(
        view.masked, x, "y", "masked fraction", line={"color": GREEN, "width": 1},
        hovertemplate="%{y:.3f} of the tokens masked<br>at %{x:,}<extra></extra>",
    )  # fmt: skip
    rate = _line(
        view.rate, x, "y5", "learning rate", line={"color": PINK, "width": 1.4, "dash": "dash"},
        hovertemplate="learning rate %{y:.3g}<br>at %{x:,}<extra></extra>",
    )  # fmt: skip
    return {"masked": masked, "rate": rate}


def _loss(view: RunView, x: Along) -> Traces:
    said = "%{y:.4f} nats per token<br>at %{x:,}<extra>"
    training = _line(
        view.loss, x, "y2", "training", line={"color": BLUE, "width": 0.8}, opacity=0.5,
        hovertemplate=f"{said}training</extra>", showlegend=True,
    )  # fmt: skip
    smooth = _line(
        view.smooth, x, "y2", "training,<br>running mean", line={"color": BLUE, "width": 2},
        hovertemplate=f"{said}training, running mean</extra>", showlegend=True,
    )  # fmt: skip
    heldout = _line(
        view.heldout, x, "y2", "held-out", mode="lines+markers", showlegend=True,
        line={"color": VERMILLION, "width": 1.4, "dash": "dot"},
        marker={"size": mark_size(len(view.heldout.value)), "symbol": "diamond"},
        hovertemplate=f"{said}held-out</extra>",
    )  # fmt: skip
    return {"loss": training, "smooth": smooth, "heldout": heldout}


def _heat(matrix: Matrix | None, x: Along, heat: Heat) -> Traces:
    """The matrix, and a cross where a number was due and was none."""
    said = (
        "%{z:.4f} nats per token<br>around"
        if heat == "exit_loss"
        else ("norm 10<sup>%{z:.2f}</sup><br>largest of the steps around")
    )
    cells = {
        "type": "heatmap", "name": HEATS[heat], "yaxis": "y3", "colorscale": HEAT,
        "hoverongaps": False, "x": np.empty(0), "y": [], "z": np.empty((0, 0)),
        "zmin": 0.0, "zmax": 1.0, "showscale": matrix is not None,
        "hovertemplate": f"%{{y}}: {said} %{{x:,.4s}}<extra></extra>",
    }  # fmt: skip
    cross = {
        "type": "scatter", "name": "no number", "mode": "markers", "yaxis": "y3",
        "showlegend": False, "marker": {"symbol": "x", "size": 7, "color": VERMILLION},
        "hovertemplate": "%{y}: no number<br>around %{x:,}<extra></extra>", "x": [], "y": [],
    }  # fmt: skip
    if matrix is not None:
        edges = matrix.edges.along(x)
        z = matrix.value if heat == "exit_loss" else decades(matrix.value)
        low, high = colour_range(z)
        rows = rows_said(matrix)
        cells |= {"x": edges, "y": rows, "z": z, "zmin": low, "zmax": high}
        row, column = _some_broken(matrix)
        middle = (edges[column] + edges[column + 1]) / 2
        cross |= {"x": middle, "y": [rows[r] for r in row]}
    return {"heat": cells, "broken": cross}


MOST_CROSSES = 400


def _some_broken(matrix: Matrix) -> tuple[Any, Any]:
    """Rows and columns of crosses; of very many, some of each column."""
    row, column = np.nonzero(matrix.broken)
    step = -(-len(row) // MOST_CROSSES) or 1
    return row[::step], column[::step]


def decades(norm_RC: Numbers) -> Numbers:
    """Powers of ten of norms, which span many; a norm of nothing counts as the least there is."""
    above = norm_RC[norm_RC > 0]
    return np.log10(np.maximum(norm_RC, above.min() if len(above) else 1.0))


def colour_range(value_RC: Numbers) -> tuple[float, float]:
    """The middle 96 % of the numbers, so that one outlier does not take all the colours."""
    found = value_RC[np.isfinite(value_RC)]
    if not len(found):
        return 0.0, 1.0
    low, high = np.percentile(found, [2, 98])
    return float(low), float(high if high > low else low + 1e-9 + abs(low) * 1e-6)


def memory_unit(view: RunView) -> tuple[int, str]:
    """Bytes in what the memory panel counts in, and its name."""
    totals = [sum(stage.predicted.values()) for stage in view.stages]
    peaks = [stage.measured_peak or stage.predicted_peak or 0 for stage in view.stages]
    known = [number for number in (*totals, *peaks) if np.isfinite(number)]
    return byte_unit(max(known, default=0))


def kinds_of(found: dict[str, Any]) -> dict[str, float | None]:
    """Bytes by the categories that are drawn; what is of no known one is `other`."""
    out = {kind: found.get(kind) for kind in KINDS[:-1]}
    rest = [value for kind, value in found.items() if kind not in KINDS and value is not None]
    return {**out, "other": sum(rest) if rest else None}


def _memory(view: RunView, x: Along) -> Traces:
    """Stacked bars as wide as their stages, and lines over them."""
    size, unit = memory_unit(view)
    placed = [stage for stage in view.stages if np.isfinite([stage.begin[x], stage.end[x]]).all()]
    seen = [stage for stage in placed if stage.measured]
    out: Traces = {}
    for kind in KINDS:
        counts = [kinds_of(stage.measured)[kind] for stage in seen]
        out[f"memory {kind}"] = {
            "type": "bar", "name": kind, "yaxis": "y4", "legend": "legend2", "offset": 0,
            "x": np.array([stage.begin[x] for stage in seen]),
            "width": np.array([stage.end[x] - stage.begin[x] for stage in seen]),
            "y": np.array([np.nan if count is None else count / size for count in counts]),
            "marker": {"color": KIND_COLOURS[kind], "line": {"width": 0},
                       "pattern": {"shape": KIND_PATTERNS[kind], "size": 7, "solidity": 0.2,
                                   "fillmode": "overlay", "fgcolor": "#ffffff",
                                   "fgopacity": 0.75}},
            "showlegend": kind != "other" or any(counts),
            "customdata": [_said(stage) for stage in seen],
            "hovertemplate": f"{kind}, measured: %{{y:.4g}} {unit}<br>%{{customdata}}"
                             "<extra></extra>",
        }  # fmt: skip
    predicted = [sum(stage.predicted.values()) if stage.predicted else None for stage in placed]
    peaks = [stage.measured_peak for stage in placed]
    out["predicted"] = _level(placed, predicted, x, size, unit, "sum, predicted", "dash")
    planned = [stage.predicted_peak for stage in placed]
    out["planned peak"] = _level(placed, planned, x, size, unit, "peak, predicted", "dot")
    out["planned peak"]["showlegend"] = any(planned)
    out["peak"] = _level(placed, peaks, x, size, unit, "peak, measured", "solid")
    return out


def _said(stage: StageView) -> str:
    text = f"stage {stage.number}, {escaped(stage.name)}"
    gone = [kind for kind, count in stage.measured.items() if count is None]
    return f"{text}; not measured: {escaped(', '.join(gone))}" if gone else text


def _level(
    stages: list[StageView], counts: list[Any], x: Along, size: int, unit: str, name: str, dash: str
) -> dict[str, Any]:
    """A level over each stage; no line between stages that do not touch."""
    ends = [place for stage in stages for place in (stage.begin[x], stage.end[x], stage.end[x])]
    nan = np.nan
    levels = [v for c in counts for v in ((nan,) * 3 if c is None else (c / size, c / size, nan))]
    dark = {"color": "#8a8a8a", "width": 2, "dash": dash}
    return {
        "type": "scatter", "mode": "lines", "name": name, "yaxis": "y4", "legend": "legend2",
        "x": np.array(ends), "y": np.array(levels), "line": dark, "showlegend": True,
        "hovertemplate": f"{name}: %{{y:.4g}} {unit}<extra></extra>",
    }  # fmt: skip
