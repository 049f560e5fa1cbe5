"""How far parts moved between stages, as a table whose cells are the fuller the farther."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from stackwise_widgets.views.markup import escaped


def drift_table_html(
    rows: Sequence[str],
    columns: Sequence[str],
    value: Mapping[tuple[str, str], float],
    words: Mapping[tuple[str, str], str],
    caption: str,
    corner: str,
    said: Callable[[float], str] = lambda number: f"{number:.3g}",
    apart: Collection[str] = (),
) -> str:
    """One row per part, one column per end of a stage.

    Args:
        rows: Parts, in the order in which a token meets them; the first is at the bottom.
        columns: Ends of stages.
        value: By row and column; what is missing is left blank, a NaN is said to be one.
        words: The tooltip of each.
        caption: What it shows.
        corner: What the rows are.
        said: A value in the cell.
        apart: Rows in another unit, whose cells have shades of their own.

    Returns:
        A table, well-formed as XML too; each cell is a `<td>` with `data-row` and `data-column`.
    """
    groups = {row: row in apart for row in rows}
    most = {
        group: max(
            (n for (r, _), n in value.items() if groups.get(r) == group and n == n), default=0
        )
        for group in (False, True)
    }
    top = "".join(f'<th scope="col">{escaped(name)}</th>' for name in columns)
    body = []
    for row in reversed(rows):
        cells = "".join(_cell(row, name, value, words, most[groups[row]], said) for name in columns)
        body.append(f'<tr><th scope="row">{escaped(row)}</th>{cells}</tr>')
    return (
        f'<div class="sw-scroll"><table class="sw-table sw-drift"><caption>{escaped(caption)}'
        f'</caption><thead><tr><th scope="col">{escaped(corner)}</th>{top}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(
    row: str,
    column: str,
    value: Mapping[tuple[str, str], float],
    words: Mapping[tuple[str, str], str],
    most: float,
    said: Callable[[float], str],
) -> str:
    number = value.get((row, column))
    facts = f'data-row="{escaped(row)}" data-column="{escaped(column)}"'
    if number is None:
        return f'<td class="sw-none" {facts}></td>'
    tip = f' title="{escaped(words.get((row, column), ""))}"'
    if math.isnan(number):
        return f"<td {facts}{tip}>not a number</td>"
    if number == 0:
        return f'<td class="sw-still" {facts}{tip}>0</td>'
    ground = f"background:rgba(213, 94, 0, {0.08 + 0.5 * number / most:.3f})"
    return f'<td {facts}{tip} style="{ground}">{escaped(said(number))}</td>'
