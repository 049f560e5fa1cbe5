"""Which of the colours, marks and dashes a curve has; each way of drawing has its own of them."""

from __future__ import annotations

COLOURS = MARKS = 7
DASHES = 6


def place_of(number: int) -> tuple[int, int, int]:
    """Which colour, mark and dash the curve of this number has; 49 come before one comes again.

    A second round of colours has each with the next mark, and with another dash.
    """
    turn = number // COLOURS
    return number % COLOURS, (number + turn) % MARKS, turn % DASHES
