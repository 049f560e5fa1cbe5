"""How far the axes of a run's picture reach, and what stands at them. Pure functions of a view."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stackwise.runs.layers import ENTRY
from stackwise_widgets.charts.view import Along, Matrix, RunView, StageView
from stackwise_widgets.views.markup import escaped

MOST_TICKS = 9
LOG_FROM = 20.0  # times the middle loss; a loss that ran away would flatten all that was before


def reach(view: RunView, x: Along) -> list[float] | None:
    """From where the run begins to where it ends, planned if it is not there; None: not known.

    While it runs the end is rounded up, so that an axis of seconds does not move all the time.
    """
    stages = placed(view, x)
    seen = view.loss.at.along(x)
    last = max([stage.end[x] for stage in stages] + [float(seen[-1]) if len(seen) else 0.0])
    if not last > 0:
        return None
    if view.state != "finished":
        digit = 10.0 ** (math.floor(math.log10(last)) - 1)
        last = digit * math.ceil(last / digit)
    first = stages[0].begin[x] if stages else 0.0
    return [first, last + 0.004 * (last - first)]


def rate_axis(view: RunView) -> dict[str, Any]:
    """Nothing, and the highest learning rate so far."""
    known = view.rate.value[np.isfinite(view.rate.value)]
    top = float(known.max()) if len(known) and known.max() > 0 else 1.0
    return {
        "yaxis5.range": [0, 1.04 * top],
        "yaxis5.tickvals": [0, top],
        "yaxis5.ticktext": ["0", f"{top:.2g}"],
    }


def ran_away(view: RunView) -> bool:
    """Whether a linear axis would show nothing but the highest loss."""
    found = view.loss.value[np.isfinite(view.loss.value)]
    return bool(len(found)) and found.max() > LOG_FROM * np.median(found) and found.min() > 0


def rows_said(matrix: Matrix) -> list[str]:
    """Names of the rows as plotly takes them, which reads any text as HTML."""
    return [escaped(name) for name in matrix.rows]


def layer_axis(matrix: Matrix | None) -> dict[str, Any]:
    """Rows by name, and as many ticks as can be read."""
    rows = [ENTRY] if matrix is None else rows_said(matrix)
    step = max(1, -(-len(rows) // MOST_TICKS))
    return {
        "yaxis3.categoryorder": "array",
        "yaxis3.categoryarray": rows,
        "yaxis3.tickvals": rows[::step],
        "yaxis3.showline": matrix is not None,  # without rows plotly draws it from NaN to NaN
        "yaxis3.range": [-0.5, len(rows) - 0.5],
    }


def placed(view: RunView, x: Along) -> list[StageView]:
    """The stages whose place is known, in this unit."""
    return [stage for stage in view.stages if math.isfinite(stage.begin[x] + stage.end[x])]
