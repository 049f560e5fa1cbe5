"""The figure of a study's question: is an arm better than the control, and from which FLOPs on?

It draws what `StudyResult` says and works nothing out by itself: losses stand beside wins, and a
run without a result is missing. What each arm is and costs inside is drawn in `paper.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from stackwise.study.summary import bits_by_seed, differences, names_in
from stackwise_widgets.paper import COLOURS, FAINT, INK, MARKERS, PaperFigure, wrapped
from stackwise_widgets.study_data import figure_data, over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stackwise.study import StudyResult

WIDTH_INCHES, ROW_INCHES, CURVES_INCHES = 10.0, 0.45, 3.4


def paired_figure(result: StudyResult) -> PaperFigure:
    """Each arm's seeds and mean, paired differences from the control, and loss against FLOPs.

    Raises:
        ExperimentError: If the runs saw different data.
    """
    names, rows = names_in(result), result.summary()
    height = 1.6 + ROW_INCHES * len(names)
    figure = PaperFigure(
        figsize=(WIDTH_INCHES, height + CURVES_INCHES), facecolor="white", layout="constrained"
    )
    FigureCanvasAgg(figure)
    above, below = figure.subfigures(2, 1, height_ratios=[height, CURVES_INCHES])
    left, right = above.subplots(1, 2)
    draw_arms(left, result, rows)
    draw_differences(right, result, rows)
    right.set_yticklabels([])
    draw_curves(below.subplots(), result, rows)
    return figure


def draw_arms(axes: Axes, result: StudyResult, rows: pd.DataFrame) -> None:
    """A mark for each seed, a bar for the mean."""
    _rows(axes, names_in(result), "bits per byte, lower is better")
    for place, row in enumerate(rows.to_dict("records")):
        found = list(bits_by_seed(result, row["arm"]).values())
        axes.plot(found, [place] * len(found), MARKERS[place % 7], color=COLOURS[place % 7], ms=5,
                  alpha=0.7)  # fmt: skip
        axes.plot([row["mean"]], [place], "|", color=INK, ms=18, mew=1.6)
    axes.set_title("a   Every seed; bar: mean", loc="left", fontsize=10)


def draw_differences(axes: Axes, result: StudyResult, rows: pd.DataFrame) -> None:
    """Each seed's difference, the mean with its 95 % interval, the judgement, the tuned rate."""
    _rows(axes, names_in(result), f"difference from {result.control}, bits per byte")
    axes.axvline(0, color=INK, lw=0.8)
    beside = axes.get_yaxis_transform()
    for place, row in enumerate(rows.to_dict("records")):
        found = list(differences(result, row["arm"]).values())
        axes.plot(found, [place - 0.15] * len(found), MARKERS[place % 7], ms=4, alpha=0.7,
                  color=COLOURS[place % 7])  # fmt: skip
        if math.isfinite(row["low"]):
            axes.plot([row["low"], row["high"]], [place + 0.1] * 2, "-", color=INK, lw=1.4)
        axes.plot([row["difference"]], [place + 0.1], "D", color=INK, ms=4)
        told = row["judged"] + (f"\nrate {row['lr']:g}" if row["tuning_flops"] else "")
        axes.text(1.02, place, told, transform=beside, va="center", fontsize=8.5)
    axes.set_title("b   Paired differences; line: 95 % interval", loc="left", fontsize=10)


def draw_curves(axes: Axes, result: StudyResult, rows: pd.DataFrame) -> None:
    """Held-out loss against FLOPs, means over seeds; dotted: where the control ends."""
    data = figure_data(result)
    heldout = over_seeds(data["heldout"], ["arm", "stage", "step"])
    for place, name in enumerate(names_in(result)):
        curve = heldout[heldout["arm"] == name].sort_values("flops")
        axes.plot(curve["flops"], curve["mean"], color=COLOURS[place % 7], lw=1.5, label=name,
                  marker=MARKERS[place % 7], ms=4)  # fmt: skip
        axes.fill_between(
            curve["flops"], curve["low"], curve["high"], color=COLOURS[place % 7], alpha=0.15, lw=0
        )
        if name == result.control and len(curve) and math.isfinite(curve["mean"].iloc[-1]):
            axes.axhline(curve["mean"].iloc[-1], color=INK, lw=1, ls=":")
    if (heldout["flops"] > 0).any():
        axes.set_xscale("log")
    _plain(axes, "FLOPs spent, head included")
    axes.set_ylabel("bits per byte", fontsize=9.5)
    axes.legend(frameon=False, fontsize=8.5)
    axes.set_title("c   Held-out loss; dotted: the control's end", loc="left", fontsize=10)


def _rows(axes: Axes, names: Sequence[str], label: str) -> None:
    """A row for each arm, the first on top."""
    _plain(axes, label)
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.5, -0.5)


def _plain(axes: Axes, label: str) -> None:
    axes.set_xlabel(label, fontsize=9.5)
    axes.tick_params(labelsize=9, color=FAINT)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
