"""The table behind a picture: the same facts, for those who read, copy or listen."""

from __future__ import annotations

from collections.abc import Sequence

from stackwise_widgets.views.markup import escaped


def table_html(head: Sequence[object], rows: Sequence[Sequence[object]], caption: str) -> str:
    """A table with a caption and a scope for each heading. All text is escaped.

    Args:
        head: The columns' names.
        rows: Cells, as many as there are columns; a None is said to be not known.
        caption: What the table shows.

    Returns:
        `<table class="sw-table">`, well-formed as XML too.

    Raises:
        ValueError: If a row has another number of cells than `head`.
    """
    odd = next((row for row in rows if len(row) != len(head)), None)
    if odd is not None:
        raise ValueError(f"table {caption!r}: {len(odd)} cells under {len(head)} columns: {odd!r}")
    top = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f'<table class="sw-table"><caption>{escaped(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def behind(summary: str, *tables: str) -> str:
    """Tables that unfold under a picture."""
    return (
        f'<details class="sw-behind"><summary>{escaped(summary)}</summary>'
        f'<div class="sw-scroll">{"".join(tables)}</div></details>'
    )


def _cell(value: object) -> str:
    return f"<td>{escaped('not known' if value is None else value)}</td>"
