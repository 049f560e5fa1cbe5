"""The masking schedule as a curve: how much is masked, over diffusion time or over training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import stackwise as sw
from stackwise_widgets.views import svg
from stackwise_widgets.views.levels import kind_of, ratio_at
from stackwise_widgets.views.markup import percent_said

if TYPE_CHECKING:
    from stackwise import Experiment, Stage

WIDTH, HEIGHT = 300.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 38.0, 232.0, 22.0, 152.0
POINTS = 96
NAMES_APART = 12.0  # between names of stacks beside their bands


def curve_svg(exp: Experiment, stages: Sequence[Stage], levels: Sequence[float]) -> str:
    """The curve with a dot at each level, the bands' edges, or the borders of stages."""
    over = "diffusion time t" if kind_of(exp) == "time" else "training done"
    label = f"masked fraction over {over}"
    parts = [*_axes(over), *_bands(exp), *_borders(exp, stages), _line(exp), *_dots(exp, levels)]
    return svg.picture(WIDTH, HEIGHT, label, parts, small=True)


def place(x: float, y: float) -> tuple[float, float]:
    """Where a point of the unit square is drawn."""
    return LEFT + x * (RIGHT - LEFT), BOTTOM - y * (BOTTOM - TOP)


def _axes(over: str) -> Iterator[str]:
    yield svg.path(f"M{LEFT} {TOP}V{BOTTOM}H{RIGHT}", "sw-rule")
    for part in (0.0, 0.5, 1.0):
        (x, _), (_, y) = place(part, 0), place(0, part)
        yield svg.label(LEFT - 5, y + 3.5, percent_said(part), "sw-faint", at="end")
        yield svg.label(x, BOTTOM + 13, f"{part:g}", "sw-faint", at="middle")
    yield svg.label((LEFT + RIGHT) / 2, BOTTOM + 28, over, "sw-faint", at="middle")
    yield svg.label(0, TOP - 12, "masked", "sw-faint")


def _bands(exp: Experiment) -> Iterator[str]:
    """The edges of the stacks' bands, with as many names as there is room for."""
    bands = sw.stack_bands(exp.masking, exp.rack.stacks, exp.objective)
    if exp.masking.bands is None:
        return
    last = float("inf")
    for stack, (low, high) in reversed(list(zip(sw.stack_ids(exp.rack), bands, strict=True))):
        (_, edge), (_, middle) = place(0, high), place(0, (low + high) / 2)
        if high < 1 and len(bands) <= 40:
            yield svg.path(f"M{LEFT} {svg.number(edge)}H{RIGHT}", "sw-edge")
        if last - middle >= NAMES_APART:
            yield svg.label(RIGHT + 6, middle + 3.5, stack, "sw-faint")
            last = middle


def _borders(exp: Experiment, stages: Sequence[Stage]) -> Iterator[str]:
    """Where stages begin, for schedules over training."""
    if kind_of(exp) == "progress":
        for stage in stages[1:41]:
            x, _ = place(stage.progress[0], 0)
            yield svg.path(f"M{svg.number(x)} {TOP}V{BOTTOM}", "sw-edge")


def _line(exp: Experiment) -> str:
    points = (place(i / POINTS, ratio_at(exp, i / POINTS)) for i in range(POINTS + 1))
    return svg.path(
        "M" + "L".join(f"{svg.number(x)} {svg.number(y)}" for x, y in points), "sw-curve"
    )


def _dots(exp: Experiment, levels: Sequence[float]) -> Iterator[str]:
    for level in levels:
        x, y = place(level, ratio_at(exp, level))
        tip = svg.title(f"{percent_said(ratio_at(exp, level))} masked at {level:g}")
        yield (
            f'<circle class="sw-dot" cx="{svg.number(x)}" cy="{svg.number(y)}" r="4">{tip}</circle>'
        )
