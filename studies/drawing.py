"""Panels that the studies' figures share, drawn from the rows of a result.csv alone; and saving.

matplotlib's object API, no pyplot, as in `stackwise_widgets/paper.py`, whose colours these are.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import pandas as pd
from common import compared, difference
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import NullFormatter

from stackwise_widgets import PaperFigure
from stackwise_widgets.paper import COLOURS, FAINT, INK, MARKERS, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("pdf", "svg", "png")
WIDTH_INCHES, ROW_INCHES, BELOW_INCHES = 10.0, 0.42, 3.4
UNITS = {"flops": "FLOPs", "tokens": "tokens"}


def blank(height: float) -> PaperFigure:
    """A figure without panels."""
    figure = PaperFigure(figsize=(WIDTH_INCHES, height), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panels_of(columns: int, height: float, rows: int = 1) -> tuple[PaperFigure, Any]:
    """A figure and an array of its panels, (rows, columns)."""
    figure = blank(height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def paired_panels(
    frame: pd.DataFrame, kind: str | None = None, more: int = 0
) -> tuple[PaperFigure, list[Axes]]:
    """Every arm's seeds, and paired differences from the control; more panels below, empty yet."""
    kind = kind or frame["kind"].iloc[0]
    height = 1.3 + ROW_INCHES * len(compared(frame, kind))
    figure, panels = blank(height + (BELOW_INCHES if more else 0)), []
    above: Any = figure
    if more:
        above, below = figure.subfigures(2, 1, height_ratios=[height, BELOW_INCHES])
        panels = list(below.subplots(1, more, squeeze=False)[0])
    left, right = above.subplots(1, 2)
    draw_arms(left, frame, kind)
    draw_differences(right, frame, kind)
    return figure, panels


def draw_arms(axes: Axes, frame: pd.DataFrame, kind: str, letter: str = "a") -> None:
    """A mark for each seed, a bar for the mean, at equal FLOPs or tokens (`kind`)."""
    rows = compared(frame, kind)
    names_on(axes, rows)
    for place, row in enumerate(rows.to_dict("records")):
        colour, marker = style(place)
        runs = frame[(frame["kind"] == kind) & (frame["arm"] == row["arm"])]
        bits = runs["bits_per_byte"]
        axes.plot(bits, [place] * len(bits), marker, color=colour, ms=5, alpha=0.7)
        axes.plot([row["mean"]], [place], "|", color=INK, ms=16, mew=1.6)
    seeds = frame[frame["kind"] == kind]["seed"].nunique()
    what = f"each of {seeds} seeds; bar: mean" if seeds > 1 else "one seed"
    titled(axes, f"{letter}   {what}", "bits per byte, lower is better")


def draw_differences(axes: Axes, frame: pd.DataFrame, kind: str, letter: str = "b") -> None:
    """The mean difference from the control with its 95 % interval, and the judgement."""
    rows = compared(frame, kind)
    names_on(axes, rows)
    axes.set_yticklabels([])
    control = next(iter(rows[rows["is_control"]]["arm"]), None)
    axes.axvline(0, color=INK, lw=0.8)
    for place, row in enumerate(rows.to_dict("records")):
        colour, _ = style(place)
        found = difference(frame, row["arm"], control, kind)
        if math.isfinite(found.low):
            axes.plot([found.low, found.high], [place] * 2, "-", color=colour, lw=1.6)
        if found.n:
            axes.plot([found.mean], [place], "D", color=colour, ms=4.5)
        axes.text(
            1.02, place, row["judged"], transform=axes.get_yaxis_transform(), va="center",
            fontsize=8.5,
        )  # fmt: skip
    titled(
        axes,
        f"{letter}   paired differences, 95 %, at equal {UNITS.get(kind, kind)}",
        f"bits per byte less those of {control}",
    )


def names_on(axes: Axes, rows: pd.DataFrame) -> None:
    """A row for each arm, the first on top."""
    axes.set_yticks(range(len(rows)), [wrapped(name) for name in rows["arm"]], fontsize=9)
    axes.set_ylim(len(rows) - 0.5, -0.5)


def titled(axes: Axes, title: str, x: str, y: str = "") -> None:
    """Labels, a title, and nothing that is not needed."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(y, fontsize=9.5)
    axes.tick_params(labelsize=9, color=FAINT)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def by_factors(axes: Axes, base: float = 10) -> None:
    """A logarithmic axis below, its numbers written out: powers would be set in fonts of maths."""
    axes.set_xscale("log", base=base)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def style(place: int) -> tuple[str, str]:
    """Colour and mark of the arm in a place."""
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def save(figure: PaperFigure, folder: Path) -> None:
    """Write figure.pdf, .svg and .png, the same bytes for the same picture."""
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    with matplotlib.rc_context({"svg.hashsalt": "stackwise", "svg.fonttype": "none"}):
        for kind in FORMATS:
            figure.savefig(folder / f"figure.{kind}", dpi=110, metadata=undated[kind])
