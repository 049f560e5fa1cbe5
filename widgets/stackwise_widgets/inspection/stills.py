"""Figures of what probes found, for papers; matplotlib's object API alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from stackwise_widgets.paper import COLOURS, FAINT, INK, MARKERS, PaperFigure
from stackwise_widgets.views.png import SCALE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def blank(width: float, height: float, text: str = "") -> tuple[PaperFigure, Axes]:
    """A figure with one panel, and the words under it."""
    figure = PaperFigure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.13, 0.2, 0.83, 0.72))
    axes.tick_params(labelsize=8.5, color=FAINT)
    figure.text(0.01, 0.015, text, fontsize=8, color=INK)
    return figure, axes


def map_still(weights_TS: NDArray[Any], tokens: Sequence[str], text: str) -> PaperFigure:
    """One attention map."""
    figure, axes = blank(6.0, 6.0, text)
    image = axes.imshow(weights_TS, cmap=SCALE, interpolation="nearest")
    every = max(1, -(-len(tokens) // 40))
    places = range(0, len(tokens), every)
    axes.set_xticks(places, [tokens[i] for i in places], fontsize=7, rotation=90,
                    family="monospace")  # fmt: skip
    axes.set_yticks(places, [tokens[i] for i in places], fontsize=7, family="monospace")
    axes.set_xlabel("is looked at", fontsize=9)
    axes.set_ylabel("looks", fontsize=9)
    figure.colorbar(image, ax=axes, fraction=0.04).ax.tick_params(labelsize=8)
    return figure


def depth_still(curves: Mapping[str, pd.Series], names: Sequence[str], text: str) -> PaperFigure:
    """Loss by exit, one curve per stage; each series is by exit."""
    figure, axes = blank(7.0, 4.0, text)
    for number, (label, curve) in enumerate(curves.items()):
        x = [names.index(str(name)) for name in curve.index]
        axes.plot(x, curve.to_numpy(), color=COLOURS[number % 7], marker=MARKERS[number % 7],
                  ms=4, lw=1.5, label=label)  # fmt: skip
    every = max(1, -(-len(names) // 12))
    axes.set_xticks(range(0, len(names), every), names[::every], fontsize=8)
    axes.set_ylabel("nats per token", fontsize=9)
    axes.set_xlabel("the rack ends after", fontsize=9)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if curves:
        axes.legend(frameon=False, fontsize=8)
    return figure


def table_still(
    frame: pd.DataFrame, rows: Sequence[str], title: str, text: str, most: int = 30
) -> PaperFigure:
    """A matrix of numbers, rows from the bottom up."""
    figure, axes = blank(1.6 + 0.9 * max(2, frame.shape[1]), 1.6 + 0.28 * max(3, len(frame)), text)
    value = frame.reindex(list(rows)).to_numpy(float)
    axes.imshow(np.ma.masked_invalid(value), cmap="Oranges", aspect="auto", origin="lower")
    axes.set_xticks(range(frame.shape[1]), [str(name) for name in frame.columns], fontsize=8)
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set_title(title, loc="left", fontsize=9)
    if value.size <= most * 10:
        for (row, column), number in np.ndenumerate(value):
            if np.isfinite(number):
                axes.text(column, row, f"{number:.2g}", ha="center", va="center", fontsize=7)
    return figure


def words_still(lines: Sequence[str], text: str) -> PaperFigure:
    """Lines of tokens, one below the other."""
    figure = PaperFigure(figsize=(7.5, 0.6 + 0.2 * max(3, len(lines))), facecolor="white")
    FigureCanvasAgg(figure)
    for number, line in enumerate(lines):
        figure.text(0.02, 1 - (number + 1) / (len(lines) + 2), line, fontsize=7.5,
                    family="monospace", color=INK, parse_math=False)  # fmt: skip
    figure.text(0.02, 0.01, text, fontsize=8, color=INK, parse_math=False)
    return figure


def parts_still(parts: Sequence[Mapping[str, Any]], text: str) -> PaperFigure:
    """The bytes of each part of a rack."""
    figure, axes = blank(6.5, 1.6 + 0.26 * max(3, len(parts)), text)
    sizes = [float(part.get("bytes") or 0) for part in parts]
    axes.barh(range(len(parts)), sizes, color=COLOURS[0])
    axes.set_yticks(range(len(parts)), [str(part.get("name")) for part in parts], fontsize=8)
    for place, part in enumerate(parts):
        kept = part.get("format") or part.get("dtype") or "not there"
        axes.text(sizes[place], place, f" {part.get('state')}, {kept}", va="center", fontsize=7.5)
    axes.set_xlim(0, 1.35 * max(sizes, default=1) or 1)
    axes.set_xlabel("bytes", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
