"""A matrix over the steps of a run that never grows wide: neighbouring steps share a column.

Gradient norms of 80 blocks over a million steps are 640 MB; a picture is some hundred columns wide.
Columns hold the largest norm of their steps, so that no spike is lost, and are merged two by two
when there are too many of them. A column never crosses a stage's border.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Columns = tuple[Numbers, Numbers, Numbers, NDArray[np.bool_]]

MOST_COLUMNS = 400
LARGEST_STEP = 1 << 40


class Coarse:
    """Takes rows step by step, and keeps at most about `most` columns of them.

    More are kept only where a run has more stages than that.

    Attributes:
        largest: (columns, rows of the picture); the largest number, NaN where there was none.
        missing: Whether a number was NaN in any of the column's steps; same shape.
        stage: Of each column.
        last: The last step in each column.
    """

    def __init__(self, most: int = MOST_COLUMNS) -> None:
        self.most, self.steps_each = most, 1
        self.stage: Numbers = np.empty(0)
        self.last: Numbers = np.empty(0)
        self.largest: Numbers = np.empty((0, 0))
        self.missing: NDArray[np.bool_] = np.empty((0, 0), bool)

    def add(self, step_N: Numbers, stage_N: Numbers, value_NR: Numbers) -> None:
        """Take the rows of some steps, which come after all those before.

        Args:
            step_N: Their numbers, from 1 on.
            stage_N: Their stages.
            value_NR: What is kept of them.
        """
        if not len(step_N):
            return
        stage_N = np.nan_to_num(stage_N, nan=-2)  # of a damaged file: no stage, but equal to itself
        new = self._merged(stage_N, step_N, value_NR, np.isnan(value_NR))
        self._hold(*(np.concatenate(pair) for pair in zip(*self._as_wide(new), strict=True)))
        most = max(self.most, 2 * len(np.unique(self.stage)))
        while len(self.last) > most and self.steps_each < LARGEST_STEP:  # steps that do not rise
            self.steps_each *= 2
            self._hold(self.stage, self.last, self.largest, self.missing)

    def _as_wide(self, new: Columns) -> tuple[Columns, Columns]:
        """What is kept and what is new, with as many rows of the picture."""
        kept = (self.stage, self.last, self.largest, self.missing)
        width = max(kept[2].shape[1], new[2].shape[1])
        old, now = (
            (stage, last, _wide(largest, width, np.nan), _wide(missing, width, True))
            for stage, last, largest, missing in (kept, new)
        )
        return old, now

    def _hold(self, *columns: Any) -> None:
        self.stage, self.last, self.largest, self.missing = self._merged(*columns)

    def _merged(self, stage: Any, last: Any, largest: Any, missing: Any) -> Columns:
        """Neighbours that belong to one column, joined."""
        column = (last - 1) // self.steps_each
        new = (np.diff(column, prepend=-1) != 0) | (np.diff(stage, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(new)) - 1
        return (
            stage[ends],
            last[ends],
            np.fmax.reduceat(largest, starts, axis=0),
            np.logical_or.reduceat(missing, starts, axis=0),
        )


def _wide(value: Any, width: int, fill: float | bool) -> Any:
    """With columns of `fill` up to a width."""
    more = np.full((len(value), width - value.shape[1]), fill, value.dtype)
    return np.concatenate([value, more], axis=1)
