"""Which held-out windows are looked at: all, or some that are evenly spread over the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stackwise.data.dataset import Dataset

if TYPE_CHECKING:
    from stackwise.config import Experiment

Ids = NDArray[np.int64]
MOST_ROWS = 64


def chosen(dataset: Dataset, count: int | None) -> Ids:
    """Numbers of at most `count` held-out windows; None: of all."""
    if count is None:
        return np.arange(dataset.n_windows)
    return np.unique(np.linspace(0, dataset.n_windows - 1, count).round().astype(int))


def some_windows(dataset: Dataset, count: int | None) -> tuple[NDArray[Any], int]:
    """The same windows, and the bytes of their text."""
    numbers = chosen(dataset, count)
    return dataset.heldout_windows(numbers), int(dataset.heldout_bytes(numbers).sum())


def rows_at_once(exp: Experiment) -> int:
    """Windows of one forward pass on held-out text: what a training step takes is there anyway.

    It does not follow the placement, which would change the last bit of a sum.
    """
    return min(MOST_ROWS, exp.optim.batch)
