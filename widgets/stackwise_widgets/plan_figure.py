"""A plan as a figure for a paper: the memory of every stage by category, and the machine's line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg

from stackwise_widgets.paper import FAINT, INK, PaperFigure

if TYPE_CHECKING:
    import stackwise as sw

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#999999", "#D55E00", "#F0E442")
HATCHES = ("", "//", "", "..", "\\\\", "", "xx", "oo")
GIB, MIB = 2**30, 2**20
NEAR = 2.0  # times the highest bar: what is further away is said, not drawn


def plan_figure(plan: sw.Plan) -> PaperFigure:
    """Bars of what each stage takes at its highest moment, stacked by category."""
    figure = PaperFigure(figsize=(7.2, 3.4), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.2, 0.62, 0.68))
    unit, word = (GIB, "GiB") if plan.peak_bytes >= GIB else (MIB, "MiB")
    stages = [int(row["stage"]) for row in plan.rows]
    kinds = list(dict.fromkeys(kind for row in plan.rows for kind in row["peak"]))
    below = [0.0] * len(stages)
    for place, kind in enumerate(kinds):
        heights = [row["peak"].get(kind, 0) / unit for row in plan.rows]
        if any(heights):
            axes.bar(stages, heights, 0.86, bottom=below, label=kind, lw=0,
                     color=COLOURS[place % 8], hatch=HATCHES[place % 8], ec="white")  # fmt: skip
            below = [low + high for low, high in zip(below, heights, strict=True)]
    limit = plan.hardware.memory_bytes / unit
    if limit <= NEAR * max(below):
        axes.axhline(limit, color=INK, lw=1.2, ls="--")
        axes.text(axes.get_xlim()[1], limit, f" {plan.hardware.name}", va="center", fontsize=8.5)
    axes.set_xlabel("stage", fontsize=9.5)
    axes.set_ylabel(f"{word} at the highest moment", fontsize=9.5)
    axes.tick_params(labelsize=9.5, color=FAINT)
    axes.grid(axis="y", color=FAINT, lw=0.5, alpha=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", bbox_to_anchor=(1.06, 0.9))
    axes.set_title(str(plan.experiment), fontsize=9.5, loc="left", color=INK)
    said = f"{plan.peak_bytes / unit:.3g} of {limit:.3g} {word} on {plan.hardware.name}"
    figure.text(0.1, 0.03, f"{said}; {plan.flops:.3g} FLOPs, {plan.tokens:,} tokens", fontsize=8.5)
    return figure
