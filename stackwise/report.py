"""Numbers as text for a terminal: aligned tables and readable units."""

from __future__ import annotations

import math
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows under a header: the first column to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def bytes_text(count: float | None) -> str:
    """`1.5 GiB`; a dash for what is not known."""
    if count is None or math.isnan(count):
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def count_text(count: float | None) -> str:
    """`1.25 M`; a dash for what is not known."""
    if count is None or math.isnan(count):
        return "-"
    for unit in ("", " k", " M", " G"):
        if abs(count) < 1000:
            return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits; a dash for what is not known."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
