"""The picture of a run on paper: the four panels of `panels.py`, drawn by matplotlib.

matplotlib's object API alone, as in `paper.py`: no global state, any thread. It draws nothing that
is not in the view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import EngFormatter

from stackwise_widgets.charts.finished import check
from stackwise_widgets.charts.frame import stage_text
from stackwise_widgets.charts.panels import (
    HEATS,
    Heat,
    colour_range,
    decades,
    kinds_of,
    matrix_of,
    memory_unit,
)
from stackwise_widgets.charts.reach import placed, ran_away, reach
from stackwise_widgets.charts.style import (
    BLUE,
    GREEN,
    KIND_COLOURS,
    KIND_HATCHES,
    KINDS,
    PINK,
    VERMILLION,
    mark_size,
)
from stackwise_widgets.charts.view import ALONG, Along, RunView
from stackwise_widgets.paper import FAINT, INK, PaperFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (8.2, 8.0)
LEFT, WIDTH = 0.095, 0.71
PANELS = {
    "strip": (0.892, 0.068),
    "loss": (0.612, 0.235),
    "heat": (0.332, 0.235),
    "memory": (0.09, 0.195),
}
SMALL = 8.5


def run_still(view: RunView, x: Along = "steps", heat: Heat = "exit_loss") -> PaperFigure:
    """Masked fraction, loss, layers x steps and memory over one axis.

    Args:
        view: Of `view_of(run)`.
        x: What runs along the axis.
        heat: What the layers x steps panel shows.

    Raises:
        ValueError: If `x` or `heat` is none of those there are.
    """
    check(x, heat)
    figure = PaperFigure(figsize=SIZE_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    axes = {name: figure.add_axes((LEFT, low, WIDTH, high)) for name, (low, high) in PANELS.items()}
    draw_strip(axes["strip"], view, x)
    draw_loss(axes["loss"], view, x)
    draw_layers(axes["heat"], view, x, heat)
    draw_memory(axes["memory"], view, x)
    for name, panel in axes.items():
        draw_borders(panel, view, x)
        if (limits := reach(view, x)) is not None:
            panel.set_xlim(*limits)
        panel.tick_params(labelbottom=name == "memory")
    axes["memory"].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes["memory"].set_xlabel(ALONG[x], fontsize=SMALL + 0.5)
    figure.text(0.01, 0.008, caption(view), fontsize=SMALL - 1, color=INK)
    return figure


def caption(view: RunView) -> str:
    """Which run it is, and how it stands."""
    step = f"step {view.step}" + (f" of {view.total_steps}" if view.total_steps else "")
    text = f"{view.id}: {view.state}, {step}"
    bits = view.result.get("bits_per_byte")
    if isinstance(bits, float):
        text += f"; {bits:.3f} bits per byte on all held-out text"
    return f"{text}. {view.problem}"[:150] if view.problem else f"{text}."


def draw_strip(axes: Axes, view: RunView, x: Along) -> None:
    """Masked fraction, learning rate, and the names of the stages."""
    _plain(axes, "masked", GREEN)
    axes.plot(view.masked.at.along(x), view.masked.value, color=GREEN, lw=0.8)
    axes.set(ylim=(0, 1.04), yticks=[0, 0.5, 1])
    rate = axes.twinx()
    rate.plot(view.rate.at.along(x), view.rate.value, "--", color=PINK, lw=1)
    rate.set_ylim(bottom=0)
    rate.spines[["top", "left", "bottom", "right"]].set_visible(False)
    rate.tick_params(labelsize=SMALL, color=FAINT)
    rate.locator_params(axis="y", nbins=2)
    rate.set_ylabel("rate (dash)", fontsize=SMALL, color=PINK)
    limits = reach(view, x)
    stages = placed(view, x)
    every = -(-len(stages) // 14) or 1
    for stage in stages[::every]:
        share = (stage.end[x] - stage.begin[x]) * every / (limits[1] - limits[0]) if limits else 0
        name = stage_text(stage, max(3, int(share * 90)))
        axes.text((stage.begin[x] + stage.end[x]) / 2, 1.1, name,
                  ha="center", va="bottom", fontsize=SMALL, color=INK)  # fmt: skip


def draw_loss(axes: Axes, view: RunView, x: Along) -> None:
    """Training loss, thin, under its running mean; held-out loss; what went wrong."""
    share = "" if view.whole else " (of each stage's own noise band)"
    _plain(axes, "nats per token", INK, f"loss{share if view.is_likelihood else ' (mlm)'}")
    axes.plot(view.loss.at.along(x), view.loss.value, color=BLUE, lw=0.5, alpha=0.4,
              label="training")  # fmt: skip
    axes.plot(view.smooth.at.along(x), view.smooth.value, color=BLUE, lw=1.5,
              label="training,\nrunning mean")  # fmt: skip
    axes.plot(view.heldout.at.along(x), view.heldout.value, ":", color=VERMILLION, marker="D",
              ms=0.6 * mark_size(len(view.heldout.value)), lw=1.2, label="held-out",
              clip_on=False)  # fmt: skip
    if ran_away(view):
        axes.set_yscale("log")
    for number, mark in enumerate(view.marks[:6]):
        axes.axvline(mark.at[x], color=VERMILLION, lw=1.5, ls="--")
        late = mark.at[x] > sum(reach(view, x) or (0.0, 0.0)) / 2
        axes.annotate(mark.text, (mark.at[x], 1), xycoords=("data", "axes fraction"),
                      xytext=(-3 if late else 3, -2 - 11 * number), textcoords="offset points",
                      ha="right" if late else "left", va="top", fontsize=SMALL, color=VERMILLION,
                      fontweight="bold")  # fmt: skip
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=SMALL)


def draw_layers(axes: Axes, view: RunView, x: Along, heat: Heat) -> None:
    """The matrix, boxes around what trains, crosses where a number was due and was none."""
    matrix = matrix_of(view, heat)
    unit = ", nats per token" if heat == "exit_loss" else ", powers of ten"
    _plain(axes, "", INK, f"{HEATS[heat]}{unit}; boxed: trains" if matrix else
           f"{HEATS[heat]}: nothing yet")  # fmt: skip
    axes.grid(False)
    if matrix is None:
        axes.set_yticks([])
        return
    edges = matrix.edges.along(x)
    z = matrix.value if heat == "exit_loss" else decades(matrix.value)
    low, high = colour_range(z)
    mesh = axes.pcolormesh(edges, np.arange(len(matrix.rows) + 1) - 0.5, np.ma.masked_invalid(z),
                           cmap=mpl.colormaps["cividis"], vmin=low, vmax=high,
                           rasterized=True)  # fmt: skip
    row, column = np.nonzero(matrix.broken)
    axes.plot((edges[column] + edges[column + 1]) / 2, row, "x", color=VERMILLION, ms=4)
    for stage in placed(view, x):
        active = [name.partition(".")[0] in stage.active for name in matrix.rows]
        ends = np.flatnonzero(np.diff(np.array([False, *active, False]).astype(int)))
        for first, last in ends.reshape(-1, 2):
            width = stage.end[x] - stage.begin[x]
            axes.add_patch(Rectangle((stage.begin[x], first - 0.5), width, last - first, fill=False,
                                     ec=VERMILLION, lw=1))  # fmt: skip
    step = -(-len(matrix.rows) // 9)
    axes.set_yticks(range(0, len(matrix.rows), step), matrix.rows[::step])
    axes.set_ylim(-0.5, len(matrix.rows) - 0.5)
    assert axes.figure is not None
    bar = axes.figure.add_axes((LEFT + WIDTH + 0.015, PANELS["heat"][0], 0.014, PANELS["heat"][1]))
    axes.figure.colorbar(mesh, cax=bar).ax.tick_params(labelsize=SMALL)


def draw_memory(axes: Axes, view: RunView, x: Along) -> None:
    """Stacked bytes of each stage, measured; the predicted sum, and both peaks."""
    size, unit = memory_unit(view)
    _plain(axes, unit, INK, "memory")
    patches = []
    for stage in placed(view, x):
        begin, width = stage.begin[x], stage.end[x] - stage.begin[x]
        base = 0.0
        for kind, count in kinds_of(stage.measured).items():
            if count is not None:
                axes.bar(begin, count / size, width, bottom=base, align="edge", ec="white", lw=0.3,
                         color=KIND_COLOURS[kind], hatch=KIND_HATCHES[kind])  # fmt: skip
                base += count / size
        ends = (begin, begin + width)
        if stage.predicted_peak is not None:
            axes.plot(ends, [stage.predicted_peak / size] * 2, ":", color=INK, lw=1.3)
        if stage.predicted:
            axes.plot(ends, [sum(stage.predicted.values()) / size] * 2, "--", color=INK, lw=1.3)
        if stage.measured_peak is not None:
            axes.plot(ends, [stage.measured_peak / size] * 2, "-", color=INK, lw=1.3)
    axes.set_ylim(bottom=0)
    patches = [Patch(fc=KIND_COLOURS[kind], hatch=KIND_HATCHES[kind], ec="white", label=kind)
               for kind in reversed(KINDS[:-1])]  # fmt: skip
    levels = {"peak, measured": "-", "peak, predicted": ":", "sum, predicted": "--"}
    if not any(stage.predicted_peak for stage in view.stages):
        del levels["peak, predicted"]
    lines = [axes.plot([], [], dash, color=INK, lw=1.3, label=text)[0]
             for text, dash in levels.items()]  # fmt: skip
    axes.legend(handles=[*lines, *patches], loc="upper left", bbox_to_anchor=(1.01, 1.04),
                frameon=False, fontsize=SMALL, labelspacing=0.3)  # fmt: skip


def draw_borders(axes: Axes, view: RunView, x: Along) -> None:
    """A line at every end of a stage, dotted where it is planned."""
    for stage in placed(view, x):
        done = stage.state == "done"
        axes.axvline(stage.end[x], color="#777777", lw=0.8, ls="-" if done else ":")


def _plain(axes: Axes, y: str, colour: str, title: str = "") -> None:
    axes.set_ylabel(y, fontsize=SMALL + 0.5, color=colour)
    axes.set_title(title, loc="left", fontsize=SMALL + 0.5, color=INK, pad=3)
    axes.tick_params(labelsize=SMALL, color=FAINT)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
