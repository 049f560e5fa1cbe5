"""Fewer points, the same picture: what is left out of a curve or a matrix, and what never is.

A curve keeps the lowest and the highest number of every piece of it, and one of each kind that is
no number: a NaN, an infinity. A matrix joins neighbouring columns, and never across a stage's
border. Pure functions of arrays.

Shapes: N points, R rows, C columns, G groups of columns.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

MOST_POINTS = 2000
MOST_COLUMNS = 200
FEWEST_POINTS = 12  # first, last, and one piece of five kinds, twice


def thin(value_N: Numbers, most: int = MOST_POINTS) -> Places:
    """Which points of a curve to draw.

    Args:
        value_N: The curve; NaN and infinities are points like others.
        most: How many to keep, 12 at least.

    Returns:
        Rising places. All of them if there are no more than `most`; else the first, the last, and
        of each of many equal pieces the lowest, the highest, and the first of each kind of number
        that is none.

    Raises:
        ValueError: If `most` is too low for that.
    """
    if most < FEWEST_POINTS:
        raise ValueError(f"most: {most} points are too few; {FEWEST_POINTS} or more")
    count = len(value_N)
    if count <= most:
        return np.arange(count)
    kinds = [kind for kind in _kinds(value_N) if kind.any()]
    size = -(-count // ((most - 2) // (2 + len(kinds))))
    found = [np.array([0, count - 1])]
    found += [_of_pieces(kind.astype(np.int8), kind, size) for kind in kinds]
    finite = np.isfinite(value_N)
    for sign in (1, -1):
        found.append(_of_pieces(np.where(finite, sign * value_N, -np.inf), finite, size))
    return np.unique(np.concatenate(found))


def _kinds(value_N: Numbers) -> tuple[NDArray[np.bool_], ...]:
    return np.isnan(value_N), value_N == np.inf, value_N == -np.inf


def _of_pieces(rank_N: NDArray[np.generic], wanted_N: NDArray[np.bool_], size: int) -> Places:
    """The first place of the highest rank in each piece of `size` that holds a wanted point."""
    pieces = -(-len(rank_N) // size)
    padded = np.full(pieces * size, rank_N.min(), rank_N.dtype)
    padded[: len(rank_N)] = rank_N
    best = padded.reshape(pieces, size).argmax(1) + size * np.arange(pieces)
    return best[wanted_N[best]]


def columns_joined(stage_C: NDArray[np.generic], most: int = MOST_COLUMNS) -> Places:
    """Where groups of neighbouring columns begin, at most `most` of them.

    Groups are as equal as they can be within a stage. Only where there are more stages than groups
    does one hold columns of two.

    Args:
        stage_C: The stage of each column, rising.
        most: Groups.
    """
    count = len(stage_C)
    starts = np.flatnonzero(np.diff(stage_C, prepend=-1) != 0) if count else np.empty(0, np.intp)
    if count <= most:
        return np.arange(count)
    if len(starts) > most:
        return np.arange(0, count, -(-count // most))
    sizes = np.diff(np.append(starts, count))
    each = next(k for k in range(1, count + 1) if (-(-sizes // k)).sum() <= most)
    pieces = [np.arange(0, size, each) + start for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate(pieces)


def mean_of_groups(value_RC: Numbers, start_G: Places) -> Numbers:
    """The mean of what is there in each group of columns; NaN where nothing is, (R, G)."""
    there = np.isfinite(value_RC)
    total = np.add.reduceat(np.where(there, value_RC, 0.0), start_G, axis=1)
    count = np.add.reduceat(there.astype(np.int64), start_G, axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def running_mean(value_N: Numbers, stage_N: NDArray[np.generic], window: int) -> Numbers:
    """The mean of the last `window` numbers of the same stage; fewer at its beginning.

    A number that is none is left out of the means after it, and has none itself.
    """
    finite = pd.Series(np.where(np.isfinite(value_N), value_N, np.nan))
    edges = np.append(np.flatnonzero(np.diff(stage_N, prepend=-1) != 0), len(finite))
    mean = np.empty(len(finite))
    for first, last in pairwise(edges):
        mean[first:last] = finite.iloc[first:last].rolling(window, min_periods=1).mean()
    return np.where(finite.notna(), mean, np.nan)
