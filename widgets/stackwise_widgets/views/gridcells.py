"""The cells of one stage as shapes: their fill or hatch, their words or letter, a corner if new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stackwise_widgets.views import svg
from stackwise_widgets.views.cells import STATES, Cell, Span
from stackwise_widgets.views.layout import Layout
from stackwise_widgets.views.markup import percent_said, shortened
from stackwise_widgets.views.stagerows import StageRow, cell_said

STRIP = 7.0  # of a hatch beside words
SMALL_LETTER = 5.1  # the width of one, in the picture's units


def hatch_of(cell: Cell) -> str | None:
    """The hatch of a cell, by its state and where it is read from; None for a plain one."""
    if cell.steps_frac < 1:
        return "drawn"
    if cell.state not in ("trunk", "suffix", "adapter", "held"):
        return None
    return f"{cell.state}-{cell.source}" if cell.source else cell.state


def cells_of(
    names: Sequence[str], layout: Layout, row: StageRow, y: float, key: str
) -> Iterator[str]:
    """The cells of a stage, left to right; those that are alike are one rectangle.

    Args:
        names: Of the columns.
        layout: Where they stand.
        row: The stage.
        y: Its upper edge.
        key: Of the hatches' ids.
    """
    for span in row.spans:
        yield _ground(names, layout, row, span, y, key)
        if layout.detail == "lines":
            yield from _corner(layout, span.cell, layout.x(span.first), y)
            continue
        for column in span.columns:
            yield from _inside(layout, span.cell, layout.x(column), layout.x(column + 1), y, key)
            yield from _corner(layout, span.cell, layout.x(column), y)


def _ground(
    names: Sequence[str], layout: Layout, row: StageRow, span: Span, y: float, key: str
) -> str:
    left, right, cell = layout.x(span.first), layout.x(span.last + 1), span.cell
    hatch = hatch_of(cell) if layout.detail == "lines" else None
    return svg.rect(
        left,
        y,
        right - left,
        layout.row,
        "sw-cell" if hatch else f"sw-cell sw-{cell.state}",
        svg.title(cell_said(names, row, span)),
        fill=f"url(#{key}-{hatch})" if hatch else None,
        data_first=span.first,
        data_last=span.last,
        data_state=cell.state,
    )


def _corner(layout: Layout, cell: Cell, left: float, y: float) -> Iterator[str]:
    """A corner is turned where a stack is new."""
    if cell.start:
        least = min(layout.cell, layout.row)
        side = svg.number(min(9.0, least if least > 12 else max(2.0, 0.8 * least)))
        corner = f"M{svg.number(left)} {svg.number(y)}h{side}l-{side} {side}z"
        yield svg.path(corner, "sw-new sw-mark")


def _inside(
    layout: Layout, cell: Cell, left: float, right: float, y: float, key: str
) -> Iterator[str]:
    """What stands in one cell: its hatch as a strip, and its words or its letter."""
    hatch, words = hatch_of(cell), layout.detail == "words"
    on = " sw-on" if cell.state == "active" else ""
    if hatch:
        wide, tall = (STRIP, layout.row - 2) if words else (right - left - 2, 5.0)
        fill = f"url(#{key}-{hatch})"
        yield svg.rect(left + 1, y + 1, wide, tall, "sw-mark", fill=fill)
    if not words:
        low = y + layout.row / 2 + (6.5 if hatch and layout.lines == 1 else 4)
        yield svg.label((left + right) / 2, low, STATES[cell.state][0], f"sw-mark{on}", at="middle")
        return
    room = right - left - (STRIP if hatch else 0.0)
    below = _below(cell, int(room / SMALL_LETTER)) if layout.lines == 2 else ""
    middle, x = y + layout.row / 2, right - room / 2
    if cell.state != "absent":
        yield svg.label(x, middle - (3 if below else -4), cell.state, f"sw-mark{on}", at="middle")
    if below:
        yield svg.label(x, middle + 12, below, f"sw-mark sw-faint{on}", at="middle")


def _below(cell: Cell, letters: int) -> str:
    """The second line of a cell: what it starts from, or where and in what it is kept."""
    if cell.steps_frac < 1:
        return shortened(f"in {percent_said(cell.steps_frac)}", letters)
    if cell.start:
        return cell.start if len(cell.start) <= letters else shortened(_brief(cell.start), letters)
    if cell.rank:
        return shortened(f"rank {cell.rank}", letters)
    said = (f"{cell.kept} {cell.source}".strip(), cell.source, cell.kept)
    return next((text for text in said if text and len(text) <= letters), "")


def _brief(start: str) -> str:
    """What a stack starts from, in fewer letters; the tooltip has all of it."""
    if start.startswith("mean of "):
        one, other = start.removeprefix("mean of ").split(", ")
        return f"\u00bd{one} + \u00bd{other}"
    return "loaded" if start.startswith("from ") else start.removeprefix("copy of ")
