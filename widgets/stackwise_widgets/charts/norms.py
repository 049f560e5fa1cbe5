"""Gradient norms by layer over a run, of what trains in each stage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stackwise.runs.following import Follower
from stackwise.runs.layers import ENTRY, block_names
from stackwise_widgets.charts.decimate import columns_joined
from stackwise_widgets.charts.facts import Facts
from stackwise_widgets.charts.stretches import places_of
from stackwise_widgets.charts.view import ALONG, Matrix, Places


def norm_matrix(facts: Facts, follower: Follower) -> Matrix | None:
    """The largest norm of some steps in each column; None if there is none, or no name for it."""
    kept = follower.norms
    stacks, each = facts.number("rack", "stacks"), facts.number("rack", "blocks_per_stack")
    if not len(kept.last) or not facts.stages or not stacks or not each:
        return None
    rows = (ENTRY, *block_names(stacks, each), "head")
    if len(rows) != kept.largest.shape[1]:
        return None
    begin = columns_joined(kept.stage)
    trains = np.array([_trains(facts, stage, rows) for stage in kept.stage]).T
    largest = np.where(trains, kept.largest.T, np.nan)
    broken = trains & (kept.missing.T | np.isinf(largest))
    value = np.fmax.reduceat(np.where(np.isinf(largest), np.nan, largest), begin, axis=1)
    last = np.append(begin[1:], len(kept.last)) - 1
    return Matrix(
        rows=rows,
        edges=_edges(follower, kept.last[last]),
        value=value,
        broken=np.logical_or.reduceat(broken, begin, axis=1),
        stage=kept.stage[begin],
    )


def _trains(facts: Facts, stage: float, rows: Sequence[str]) -> list[bool]:
    """Whether each row trains in a stage."""
    if not 0 <= stage < len(facts.stages):
        return [True] * len(rows)
    found = facts.stages[int(stage)]
    ends = [found["embedding"], found["head"]]
    return [ends[0], *(name.partition(".")[0] in found["active"] for name in rows[1:-1]), ends[1]]


def _edges(follower: Follower, last_step: np.ndarray) -> Places:
    """From before the first step to each last one."""
    places = places_of(follower)
    row = np.searchsorted(places.steps, last_step)
    row = np.minimum(row, len(places.steps) - 1)  # steps of a damaged file may not rise
    step = places.steps[0]
    columns = []
    for unit in ALONG:
        along = places.along(unit)
        # A run that begins at step 1 begins at nothing; one that was branched, where it was.
        first = 0.0 if step <= 1 else along[0]
        columns.append(np.append(first, along[row]))
    return Places(*columns)
