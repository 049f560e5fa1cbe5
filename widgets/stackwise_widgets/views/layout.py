"""Where things stand in the grid: widths and heights, by how many stages and stacks there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Detail = Literal["words", "letters", "lines"]

WIDTH = 760.0
TOP = 34.0
WORDS_WIDTH, LETTER_WIDTH = 56.0, 11.0
FIGURES = ("noise", "tokens", "FLOPs", "peak memory")
DONE_WIDTH = 54.0
ENDS_WIDTH = 30.0


@dataclass(frozen=True)
class Layout:
    """Coordinates of the grid.

    Attributes:
        detail: What a cell has room for.
        left: Where the cells begin.
        end: Width of the embedding's and the head's cells.
        cell: Width of a stack's cell.
        row: Height of a stage.
        stacks: How many stacks there are.
        figures: Where each column of figures begins, and how wide it is.
        lines: Lines of text that a row has room for.
    """

    detail: Detail
    left: float
    end: float
    cell: float
    row: float
    stacks: int
    figures: dict[str, tuple[float, float]]
    lines: int

    def x(self, column: int) -> float:
        """The left edge of a column: 0 is the embedding, the last the head; one more, its end."""
        if column == 0:
            return self.left
        stacks = self.left + self.end + self.cell * min(column - 1, self.stacks)
        return stacks + self.end * max(0, column - 1 - self.stacks)

    @property
    def right(self) -> float:
        """Where the cells end."""
        return self.x(self.stacks + 2)


def layout_of(stages: int, stacks: int, *, noise: bool, planned: bool, done: bool) -> Layout:
    """The layout for so many rows and stacks.

    Args:
        stages: Rows.
        stacks: Columns, beside the embedding's and the head's.
        noise: Whether anything is masked, so that noise has a column.
        planned: Whether bytes and FLOPs are known.
        done: Whether it is said how stages stand.
    """
    row, lines = (42.0, 2) if stages <= 12 else (20.0, 1) if stages <= 36 else (6.5, 0)
    dense = lines == 0
    left = (64.0 if dense else 84.0) + (DONE_WIDTH if done and lines < 2 else 0.0)
    wide = dict.fromkeys(FIGURES, 50.0 if dense else 66.0) | {"noise": 62.0 if dense else 84.0}
    left_out = (() if noise else ("noise",)) + (() if planned else ("FLOPs", "peak memory"))
    wide = {name: width for name, width in wide.items() if name not in left_out}
    room = WIDTH - left - sum(wide.values()) - 10.0 * len(wide)
    cell = room / (stacks + 2)
    detail: Detail = "words" if cell >= WORDS_WIDTH and lines else "letters"
    if dense or cell < LETTER_WIDTH:
        detail = "lines"
    end = max(cell, ENDS_WIDTH)
    cell = min((room - 2 * end) / stacks, 90.0)
    end = min(end, 90.0)
    figures, x = {}, left + 2 * end + cell * stacks
    for name, width in wide.items():
        figures[name] = (x + 10.0, width)
        x += 10.0 + width
    return Layout(detail, left, end, cell, row, stacks, figures, lines)
