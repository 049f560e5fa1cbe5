"""What stands beside the cells of the grid: names and states of stages, noise bands, figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from stackwise_widgets.views import svg
from stackwise_widgets.views.layout import TOP, Layout
from stackwise_widgets.views.markup import bytes_said, count_said, flops_said, shortened
from stackwise_widgets.views.stagerows import StageRow

LETTER = 6.4  # the width of one, in the picture's units
SAID = {"tokens": count_said, "FLOPs": flops_said, "peak memory": bytes_said}
Tops = Sequence[tuple[StageRow, float]]


def value_of(row: StageRow, name: str) -> float | None:
    """A figure of a stage; None where it is not known."""
    values = {"tokens": row.stage.tokens, "FLOPs": row.flops, "peak memory": row.peak_bytes}
    return values[name]


def most_of(rows: Sequence[StageRow], layout: Layout) -> dict[str, float]:
    """The largest of each figure, to which the bars are drawn."""
    names = [name for name in layout.figures if name in SAID]
    return {name: max((value_of(row, name) or 0 for row in rows), default=0) for name in names}


def heads(layout: Layout, most: Mapping[str, float]) -> Iterator[str]:
    """Names of the columns of figures; over bars without a figure of their own, what is longest."""
    for name, (x, width) in layout.figures.items():
        end = x + width
        if name == "noise":
            yield svg.label(x, TOP - 21, "masked", "sw-faint")
            yield svg.label(x, TOP - 9, "0", "sw-faint")
            yield svg.label(end, TOP - 9, "100 %", "sw-faint", at="end")
        elif layout.lines:
            yield svg.label(end, TOP - 9, name, "sw-faint", at="end")
        else:
            yield svg.label(x, TOP - 21, name.partition(" ")[0], "sw-faint")
            if most[name]:
                yield svg.label(end, TOP - 9, SAID[name](most[name]), "sw-faint", at="end")


def figures_of(layout: Layout, row: StageRow, y: float, most: Mapping[str, float]) -> Iterator[str]:
    """The noise band of a stage and its figures, each with a bar."""
    for name, (x, width) in layout.figures.items():
        if name == "noise":
            yield from _noise(layout, row, x, width, y)
        else:
            yield from _amount(layout, row, name, x, width, y, most[name])


def _noise(layout: Layout, row: StageRow, x: float, width: float, y: float) -> Iterator[str]:
    """The masked fractions of a stage on a track from 0 to 100 %."""
    if row.noise is None:
        return
    low, high, words = row.noise
    tall = (layout.row - 2.5, 7.0, 8.0)[layout.lines]
    top = y + (9.0 if layout.lines == 2 else (layout.row - tall) / 2)
    wide = max(2.0, (high - low) * width)
    at = min(x + low * width, x + width - wide)
    yield svg.rect(x, top, width, tall, "sw-track")
    yield svg.rect(at, top, wide, tall, "sw-noise", data_low=low, data_high=high)
    if layout.lines == 2:
        yield svg.label(x, top + 21, words, "sw-faint")


def _amount(
    layout: Layout, row: StageRow, name: str, x: float, width: float, y: float, most: float
) -> Iterator[str]:
    """A figure, with a bar that compares it with the largest of all stages."""
    value, end = value_of(row, name), x + width
    if layout.lines:
        low = y + (16.0 if layout.lines == 2 else 12.5)
        yield svg.label(end, low, SAID[name](value) if value is not None else "-", at="end")
    if layout.lines == 2 and (beside := _beside(row, name)):
        yield svg.label(end, y + 29, beside, "sw-faint", at="end")
    if value and most:
        wide, tall = max(0.5, value / most * width), 3.0 if layout.lines else layout.row - 2
        left, top = (end - wide, y + layout.row - 6) if layout.lines else (x, y + 1)
        yield svg.rect(left, top, wide, tall, "sw-amount")


def _beside(row: StageRow, name: str) -> str:
    """What stands under a figure where there is room."""
    if name == "tokens":
        return f"{count_said(row.steps)} steps"
    if name == "FLOPs" and row.flops is not None:
        return f"{count_said(row.flops / max(row.stage.tokens or 0, 1))}/token"
    return ""


def name_of(layout: Layout, row: StageRow, y: float) -> Iterator[str]:
    """A stage's number and name, and how it stands: below it, or in its place on a low row."""
    most, middle = int((layout.left - 6) / LETTER), y + layout.row / 2
    below = layout.lines == 2 and bool(row.done)
    named = f"{row.number} {row.stage.name}"
    if row.done and not below:
        whole = f"{named} {row.done}"
        named = whole if len(whole) <= most else f"{row.number} {row.done}"
    yield svg.label(0, middle + (-2 if below else 4), shortened(named, most))
    if below:
        yield svg.label(0, middle + 13, shortened(row.done, most), "sw-faint sw-strong")


def marks(layout: Layout, tops: Tops) -> Iterator[str]:
    """Where rows are too low for words: names of some stages, and once for many how they stand."""
    last = float("-inf")
    for row, y in tops:
        tenth = row.number % 10 == 0 or row is tops[-1][0]
        if tenth and y - last >= 13:
            text = shortened(f"{row.number} {row.stage.name}", 10)
            yield svg.label(0, y + layout.row / 2 + 3.5, text, "sw-faint")
            last = y
    for done, group in groupby(tops, key=lambda pair: pair[0].done):
        ys = [y for _, y in group]
        if done:
            tall = ys[-1] + layout.row - ys[0]
            yield svg.rect(layout.left - 6, ys[0] + 1, 2, tall - 2, "sw-amount")
            middle = ys[0] + tall / 2 + 3.5
            yield svg.label(layout.left - 9, middle, shortened(done, 9), "sw-faint", at="end")


def column_lines(layout: Layout, tops: Tops) -> Iterator[str]:
    """Lines between the columns, where rows are drawn in one piece and columns are wide enough."""
    if layout.detail == "lines" and layout.cell >= 4 and tops:
        bottom = svg.number(tops[-1][1] + layout.row)
        xs = (svg.number(layout.x(column)) for column in range(1, layout.stacks + 2))
        yield svg.path("".join(f"M{x} {svg.number(TOP)}V{bottom}" for x in xs), "sw-thin")
