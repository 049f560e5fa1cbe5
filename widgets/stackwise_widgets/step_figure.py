"""A step for paper: gradient and move of each block, and the losses so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg

from stackwise.stepping import Phase
from stackwise_widgets.paper import COLOURS, FAINT, INK, PaperFigure

BLUE, VERMILION = COLOURS[:2]
SIZE_INCHES = (9.0, 3.4)


def step_figure(phase: Phase, losses: Sequence[tuple[int, float]]) -> PaperFigure:
    """Three panels: gradient norms, weights moved over their norm, loss by step.

    Args:
        phase: The last phase of a step.
        losses: Number of each step, from 0, and its loss.

    Raises:
        ValueError: If the phase is not the last one of its step.
    """
    if not phase.is_last:
        raise ValueError(f"phase: {phase.name} is not the end of a step; go on to its update")
    figure = PaperFigure(figsize=SIZE_INCHES, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    _bars(axes[0], "gradient norm", phase.grad_norms, VERMILION, "", "none")
    percent = {name: 100 * phase.relative[name] for name in phase.grad_norms}
    _bars(axes[1], "weights moved, % of their norm", percent, BLUE, "//", "0")
    axes[2].plot([step + 1 for step, _ in losses], [loss for _, loss in losses], "o-", color=BLUE,
                 ms=3.5, lw=1.4)  # fmt: skip
    axes[2].set_xlabel("step of the stage", fontsize=9)
    axes[2].set_title("loss, nats a token", fontsize=9.5, color=INK)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(labelsize=8.5)
        each.grid(color=FAINT, lw=0.5)
        each.set_axisbelow(True)
    figure.suptitle(
        f"stage {phase.stage}, step {phase.step + 1} of {phase.steps}", fontsize=10, color=INK
    )
    return figure


def _bars(
    axes: object, title: str, values: Mapping[str, float | None], colour: str, hatch: str, none: str
) -> None:
    """A bar for each block from top to bottom; a word where there is nothing."""
    from matplotlib.axes import Axes

    assert isinstance(axes, Axes)
    names = list(values)
    sizes = [value or 0.0 for value in values.values()]
    axes.barh(range(len(names)), sizes, 0.7, color=colour, hatch=hatch, ec="white", lw=0.4)
    for row, value in enumerate(values.values()):
        text = f" {value:.3g}" if value else f" {none}"
        axes.text(value or 0.0, row, text, va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.3 * max(sizes) or 1)
    axes.set_title(title, fontsize=9.5, color=INK)
