"""The figure of a study: held-out loss at equal compute, loss by depth, memory.

It draws nothing that is not in the frames of `study_data.py`. matplotlib's object API alone: no
pyplot, so no global state, and a figure may be drawn from any thread.

A loss is drawn only where it is the whole bound, so that heights can be compared. A stage that
trains in a noise band measures its band's share; such a stage shows only in the final point.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from stackwise.printing import printable
from stackwise_widgets.study_data import figure_data, over_seeds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stackwise.study import StudyResult

SIZE_INCHES = (10.0, 8.4)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe-Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CATEGORIES = ("weights", "gradients", "optimizer", "average", "activations")
GREYS = ("#2b2b2b", "#5c5c5c", "#8a8a8a", "#b4b4b4", "#dadada")
INK, FAINT = "#222222", "#cccccc"
TEN = r"(?:-?[\d.]+\\times)?10\^\{-?\d+\}"
POWER = re.compile(rf"[^$\\]*\$(?:{TEN}|\\mathdefault\{{-?{TEN}\}})\$\)?")
SMOOTH_FRAC = 1 / 20


class PaperFigure(Figure):
    """A figure that a notebook shows as a PNG when it is the last value of a cell.

    Dollars are dollars: a name may come from a stranger, and is no mathematics.
    """

    def draw(self, renderer: Any) -> None:
        """Draw it; of its texts only powers of ten, as axes have them, are set as mathematics."""
        for text in self.findobj(Text):
            text.set_text("\n".join(map(printable, text.get_text().split("\n"))))
            text.set_parse_math(POWER.fullmatch(text.get_text()) is not None)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()


def study_figure(result: StudyResult) -> PaperFigure:
    """Loss against FLOPs with the stages below it, loss by depth, and memory by category."""
    data = figure_data(result)
    names = list(dict.fromkeys(data["arms"]["arm"]))
    style = {name: (COLOURS[i % 7], MARKERS[i % 7]) for i, name in enumerate(names)}
    figure = PaperFigure(figsize=SIZE_INCHES, facecolor="white")
    FigureCanvasAgg(figure)
    draw_loss(figure.add_axes((0.2, 0.605, 0.64, 0.35)), data, style)
    draw_stages(figure.add_axes((0.2, 0.455, 0.64, 0.14)), data, style)
    draw_depth(figure.add_axes((0.07, 0.085, 0.355, 0.275)), data, style)
    draw_memory(figure.add_axes((0.645, 0.085, 0.255, 0.25)), data["memory"], names)
    titles = {"a   Held-out loss and stages": (0.01, 0.97), "b   Loss by depth": (0.01, 0.375)}
    titles["c   Memory of the most expensive stage"] = (0.47, 0.375)
    for text, (x, y) in titles.items():
        figure.text(x, y, text, fontsize=11, fontweight="bold", color=INK)
    figure.text(0.01, 0.012, caption(data["arms"], result.equal), fontsize=8.5, color=INK)
    return figure


Style = dict[str, tuple[str, str]]


def draw_loss(axes: Axes, data: dict[str, pd.DataFrame], style: Style) -> None:
    """Held-out curves over thin training curves; a larger mark is the final score."""
    _plain(axes, "", "bits per byte")
    axes.tick_params(labelbottom=False)
    heldout = over_seeds(data["heldout"], ["arm", "stage", "step"])
    final = over_seeds(data["arms"], ["arm"])
    for name, (colour, marker) in style.items():
        for flops, smooth in smoothed(_mine(data["training"], name)):
            axes.plot(flops, smooth, color=colour, lw=0.6, alpha=0.35, zorder=1)
        curve = _mine(heldout, name)
        axes.fill_between(
            curve["flops"], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0
        )
        axes.plot(curve["flops"], curve["mean"], color=colour, marker=marker, ms=4.5, lw=1.6)
        border = curve.groupby("stage").tail(1).iloc[:-1]
        axes.plot(border["flops"], border["mean"], "|", color=colour, ms=20, mew=1.4)
        end = _mine(final, name)
        axes.plot(end["flops"], end["mean"], marker, color=colour, ms=10, mec="white", zorder=9,
                  clip_on=False)  # fmt: skip
    axes.set_xlim(0, _widest(data["arms"]))
    entropy = data["arms"]["entropy_bits_per_byte"].min()
    limits = loss_limits(heldout, final, entropy)
    if limits is not None:
        axes.set_ylim(*limits)
    if math.isfinite(entropy):
        axes.axhline(entropy, color=INK, lw=1, ls=":")
        place = (0.01 * axes.get_xlim()[1], entropy)
        axes.annotate("entropy of the text", place, va="bottom", fontsize=8.5, annotation_clip=True)
    axes.text(1.02, 1.0, notes(data), transform=axes.transAxes, va="top", fontsize=8.5,
              color=INK, linespacing=1.3)  # fmt: skip


def notes(data: dict[str, pd.DataFrame]) -> str:
    """How to read the first panel."""
    text = "thick: held-out\nthin: training,\nsmoothed\n\nupright stroke:\na stage ends\n\n"
    text += "large mark: score\non all held-out text"
    if not data["stages"]["whole"].all():
        text += "\n\nNo curve where a\nloss is the share of\na noise band (or\nmlm's): score alone."
    return text


def smoothed(training: pd.DataFrame) -> Iterator[tuple[pd.Series, pd.Series]]:
    """FLOPs and the running mean of the loss, of each stage of each seed."""
    for _, run in training.groupby("seed"):
        window = max(1, round(len(run) * SMOOTH_FRAC))
        for _, stage in run.groupby("stage"):
            bits = stage["bits_per_byte"]
            yield stage["flops"], bits.rolling(window, min_periods=window // 2 + 1).mean()


def loss_limits(
    heldout: pd.DataFrame, final: pd.DataFrame, entropy: float = math.nan
) -> tuple[float, float] | None:
    """Bits per byte to show: everything from the first sixth of the FLOPs on, and 5 % at least.

    Less would make a picture of noise. The entropy of the text is shown if it is not far below.
    """
    late = heldout[heldout["flops"] >= final["flops"].max() / 6]
    seen = pd.concat([late["low"], late["high"], final["low"], final["high"]])
    seen = seen[seen.map(math.isfinite)]
    if seen.empty:
        return None
    low, high = float(seen.min()), float(seen.max())
    low = entropy if high - entropy < 2 * (high - low) else low
    span = max(1.14 * (high - low), 0.05 * (high + low) / 2)
    return (low + high - span) / 2, (low + high + span) / 2


def draw_stages(axes: Axes, data: dict[str, pd.DataFrame], style: Style) -> None:
    """One row per arm: its name, its stages along the FLOPs, its final score. Also the legend."""
    widest, beside = _widest(data["arms"]), axes.get_yaxis_transform()
    power = math.floor(math.log10(widest))
    _plain(axes, f"FLOPs spent, head included (times $10^{{{power}}}$)", "")
    for row, (name, (colour, marker)) in enumerate(style.items()):
        stages = _mine(data["stages"], name)
        for at, stage in enumerate(stages[stages["seed"] == stages["seed"].min()].itertuples()):
            width = stage.end_flops - stage.begin_flops
            axes.barh(row, width, 0.8, left=stage.begin_flops, color=colour, ec="white", lw=1.5,
                      alpha=0.32 if at % 2 else 0.18)  # fmt: skip
            axes.text(stage.begin_flops + width / 2, row, stage_label(stage, width / widest),
                      ha="center", va="center", fontsize=8.5, color=INK)  # fmt: skip
        axes.plot(-0.02, row, marker, color=colour, ms=8, clip_on=False, transform=beside)
        axes.text(
            -0.04, row, wrapped(name), transform=beside, ha="right", va="center", fontsize=9.5
        )
        axes.text(1.02, row, score_text(_mine(data["arms"], name)), va="center", fontsize=9.5,
                  transform=beside)  # fmt: skip
    axes.set(xlim=(0, widest), ylim=(len(style) - 0.5, -0.5), yticks=[])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 10**power:g}")
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.text(1.02, 1.03, "bits per byte", transform=axes.transAxes, fontsize=8.5)


def _widest(arms: pd.DataFrame) -> float:
    """The right end of the axis of FLOPs; 1 if no run has an end."""
    most = float(arms["flops"].max())
    return 1.01 * most if most > 0 else 1.0


def stage_label(stage: Any, width_frac: float) -> str:
    """A stage's name, with its band if it has one, as far as there is room."""
    if stage.low == 0 and stage.high == 1:
        text = str(stage.name)
    else:
        text = f"{stage.name}  {stage.low:.2g} to {stage.high:.2g}"
    letters = int(width_frac * 90)
    return text if len(text) <= letters else str(stage.name) if len(stage.name) <= letters else ""


def wrapped(name: str) -> str:
    """An arm's name in lines that fit beside its row."""
    return "\n".join(map(printable, wrap(name, 22)))


def score_text(arms: pd.DataFrame) -> str:
    """One seed: its score. Several: their mean and its standard error."""
    bits = arms["bits_per_byte"]
    if bits.isna().any():
        return "none"
    if len(bits) == 1:
        return f"{bits.iloc[0]:.3f}"
    return f"{bits.mean():.3f} ± {bits.std(ddof=1) / len(bits) ** 0.5:.3f}"


def draw_depth(axes: Axes, data: dict[str, pd.DataFrame], style: Style) -> None:
    """Solid: the rack ends after a block. Dashed: it begins there."""
    _plain(axes, "blocks run before the exit, or skipped before the entry", "bits per byte")
    depth = over_seeds(data["depth"], ["arm", "kind", "block"])
    for name, (colour, marker) in style.items():
        curve = _mine(depth, name)
        dash = "--" if (curve["kind"] == "entry").any() else "-"
        axes.fill_between(
            curve["block"], curve["low"], curve["high"], color=colour, alpha=0.2, lw=0
        )
        axes.plot(curve["block"], curve["mean"], dash, color=colour, marker=marker, ms=5, lw=1.5)
    kinds = set(depth["kind"])
    words = {"exit": ("solid: ends there", "-"), "entry": ("dashed: begins there", "--")}
    for kind in [word for word in words if word in kinds]:
        axes.plot([], [], words[kind][1], color=INK, lw=1.5, label=words[kind][0])
    if kinds:
        axes.legend(frameon=False, fontsize=9, loc="best")
        axes.set_xlim(-0.2, depth["block"].max() + 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_memory(axes: Axes, memory: pd.DataFrame, names: Sequence[str]) -> None:
    """Stacked bytes of each arm's most expensive stage, predicted above measured."""
    mean = memory.groupby(["arm", "category"], sort=False)[["predicted", "measured"]].mean()
    largest = mean.drop("peak", level="category").groupby("arm").sum().max().max()
    unit, word = _unit(largest)
    beside = axes.get_yaxis_transform()
    _plain(axes, f"{word}; hatched: predicted, plain: measured", "")
    for row, name in enumerate(names):
        bars = mean.loc[name] / unit
        for column, place, hatch in (("predicted", -0.19, "/////"), ("measured", 0.19, "")):
            counts = bars[column].reindex(CATEGORIES)
            left = (counts.fillna(0).cumsum() - counts.fillna(0)).tolist()
            axes.barh([row + place] * len(left), counts.fillna(0), 0.34, left=left, color=GREYS,
                      hatch=hatch, ec="white", lw=0.4)  # fmt: skip
            axes.text(counts.sum(), row + place, f" {_total(counts)}", va="center", fontsize=8.5)
        peak = bars["measured"].get("peak", math.nan)
        axes.text(1.06, row + 0.19, f"{peak:.3g}" if math.isfinite(peak) else "unknown",
                  transform=beside, va="center", fontsize=8.5)  # fmt: skip
    axes.text(1.06, 1.0, "peak", transform=axes.transAxes, fontsize=8.5)
    axes.set(xlim=(0, 1.2 * largest / unit), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(range(len(names)), map(wrapped, names), fontsize=9.5)
    axes.grid(False)
    patches = [Patch(color=g, label=c) for c, g in zip(CATEGORIES, GREYS, strict=True)]
    axes.legend(handles=patches, ncols=5, frameon=False, fontsize=8.5, loc="lower right",
                bbox_to_anchor=(1.06, 0.97), handlelength=0.9, columnspacing=0.8,
                handletextpad=0.3)  # fmt: skip


def _total(bars: pd.Series) -> str:
    return f"{bars.sum():.3g}" if bars.notna().all() else "in part"


def _unit(largest: float) -> tuple[int, str]:
    """The largest binary unit that leaves a number of at least 1."""
    power = min(3, int(math.log(largest, 1024))) if largest >= 1 else 0
    return 1024**power, ("B", "KiB", "MiB", "GiB")[power]


def caption(arms: pd.DataFrame, equal: str) -> str:
    """One line: what was run, and how much it may say."""
    others, seeds = arms["arm"].nunique() - 1, arms["seed"].nunique()
    more = f" and {others} more arm{'s' * (others > 1)} at equal {equal.replace('flops', 'FLOPs')}"
    many = "One seed names no winner." if seeds == 1 else f"{seeds} seeds; shaded: their range."
    return f"{arms['experiment'].iloc[0]}{more if others else ''}. {many}"


def _mine(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["arm"] == name]


def _plain(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9.5)
    axes.set_ylabel(y, fontsize=9.5)
    axes.tick_params(labelsize=9.5, color=FAINT)
    axes.grid(color=FAINT, lw=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
