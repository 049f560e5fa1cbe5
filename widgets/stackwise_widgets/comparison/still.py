"""Runs laid over each other for a paper, drawn by matplotlib: of the picture's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import EngFormatter

from stackwise_widgets.charts.overlaid import Over
from stackwise_widgets.comparison.picture import legend_said, limits_of, placed_over
from stackwise_widgets.curve_looks import place_of
from stackwise_widgets.paper import COLOURS, FAINT, INK, MARKERS, PaperFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE, TALL = 7.0, 4.1  # inches, without the words below
LINE = 0.14  # inches, of those words
LETTERS = 104  # in a line of them
STRIP = 0.11  # of the width, for final scores side by side
DASHES = ("-", "--", ":", "-.", (0, (9, 3)), (0, (9, 2, 2, 2)))


def overlay_still(
    data: pd.DataFrame, x: Over = "flops", seeds_band: bool = True, remarks: Sequence[str] = ()
) -> PaperFigure:
    """Held-out loss of several runs over what was spent, and beside it what each came to.

    Args:
        data: Of `overlay_data`.
        x: What runs along the axis; with `peak_bytes` scores stand over their memory.
        seeds_band: As for `overlay_html`.
        remarks: What a reader should know before comparing: of `comparable`.
    """
    words = [line for remark in remarks for line in wrap(remark, LETTERS, break_on_hyphens=False)]
    tall = TALL + LINE * len(words)
    figure = PaperFigure(figsize=(WIDE, tall), facecolor="white")
    FigureCanvasAgg(figure)
    low, high = (0.55 + LINE * len(words)) / tall, 1 - 0.12 / tall
    strip = 0.0 if x == "peak_bytes" or data.empty else STRIP
    axes = figure.add_axes((0.1, low, 0.87 - strip, high - low))
    figure.text(0.01, 0.06 / tall, "\n".join(words), fontsize=8, color=INK, linespacing=1.2)
    _plain(axes)
    axes.set_ylabel("bits per byte", fontsize=9.5)
    if data.empty:
        axes.text(0.5, 0.5, "no runs", ha="center", transform=axes.transAxes, color=INK)
        return figure
    found, size, title = placed_over(data, x, seeds_band)
    axes.set_xlabel(title, fontsize=9.5)
    beside = axes
    if strip:
        beside = figure.add_axes((0.98 - strip, low, strip, high - low), sharey=axes)
        _as_strip(beside, found["label"].nunique())
    for number, (name, part) in enumerate(found.groupby("label", sort=False)):
        _draw(axes, beside, part, number, legend_said(str(name), found), size)
    if (limits := limits_of(found, x)) is not None:
        axes.set_ylim(*limits)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.legend(frameon=False, fontsize=8.5, loc="best")
    return figure


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=9, color=FAINT)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _as_strip(axes: Axes, many: int) -> None:
    """Where final scores stand side by side, as they may fall together along the axis."""
    _plain(axes)
    axes.set(xlim=(0, many), xticks=[])
    axes.tick_params(left=False, labelleft=False)
    axes.set_xlabel("final score,\nall held-out text", fontsize=8)


def _draw(axes: Axes, beside: Axes, part: pd.DataFrame, number: int, said: str, size: int) -> None:
    """One experiment: its curve in its band, and its final score beside it or over its memory."""
    which, mark, dash = place_of(number)
    colour, marker, alone = COLOURS[which], MARKERS[mark], beside is axes
    if not alone:
        curve = part[part["kind"] == "heldout"].sort_values("place")
        if (curve["runs"] > 1).any():
            axes.fill_between(curve["place"], curve["low"], curve["high"], color=colour,
                              alpha=0.2, lw=0)  # fmt: skip
        axes.plot(curve["place"], curve["mean"], ls=DASHES[dash], color=colour, marker=marker,
                  ms=3.5, lw=1.5, label=said)  # fmt: skip
    final = part[part["kind"] == "final"]
    place = final["place"] if alone else [number + 0.5] * len(final)
    beside.plot(place, final["mean"], marker, color=colour, ms=8, mec="white", clip_on=False,
                zorder=9, label=said if alone else None)  # fmt: skip
    if alone:
        axes.hlines(final["mean"], final["left"] / size, final["right"] / size, color=colour)
    else:
        beside.vlines(place, final["low"], final["high"], color=colour)
