"""The looks at held-out text, those that are missing among them, and the loss at every exit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackwise.runs.following import Follower
from stackwise.runs.layers import exit_names
from stackwise_widgets.charts.decimate import columns_joined, mean_of_groups
from stackwise_widgets.charts.facts import Facts
from stackwise_widgets.charts.stretches import COLUMN, number_or_nan, places_of
from stackwise_widgets.charts.view import ALONG, Matrix, Numbers, Places, StageView


@dataclass(frozen=True)
class Looks:
    """Looks in the order of their steps; one that was due and is not there has no numbers.

    Attributes:
        at, stage, loss: Of each.
        exits: Its exit losses, from the embedding on; empty if it went by none, None if missing.
    """

    at: Places
    stage: Numbers
    loss: Numbers
    exits: tuple[tuple[float, ...] | None, ...]


def looks_due(ends: Sequence[int], points: int) -> set[int]:
    """The steps after which a run looks: `points` of them evenly spread, and each stage's end."""
    total = ends[-1] if ends else 0
    return set(ends) | {-(-number * total // points) for number in range(1, points + 1)} - {0}


def looks_of(facts: Facts, follower: Follower, stages: Sequence[StageView]) -> Looks:
    """The looks that there are, and a gap for each that should be."""
    held = {int(look["step"]): look for look in follower.looks}
    missing = sorted(_missing(facts, follower, stages) - set(held))
    places = places_of(follower)
    rows = np.searchsorted(places.steps, missing)
    columns = [
        np.array(
            [number_or_nan(look.get(COLUMN[unit])) for look in held.values()]
            + [places.along(unit)[row] for row in rows]
        )
        for unit in ALONG
    ]
    stage = np.array(
        [number_or_nan(look.get("stage")) for look in held.values()]
        + [follower.numbers("stage")[row] for row in rows]
    )
    loss = [number_or_nan(look.get("loss")) for look in held.values()] + [np.nan] * len(missing)
    exits = [_exits(look.get("exit_losses")) for look in held.values()] + [None] * len(missing)
    order = np.argsort(columns[0], kind="stable")
    return Looks(
        at=Places(*columns).at(order),
        stage=np.nan_to_num(stage[order], nan=-1.0),
        loss=np.array(loss)[order],
        exits=tuple(exits[place] for place in order),
    )


def _exits(found: object) -> tuple[float, ...]:
    return tuple(map(number_or_nan, found)) if isinstance(found, list) else ()


def _missing(facts: Facts, follower: Follower, stages: Sequence[StageView]) -> set[int]:
    """The steps after which there should have been a look by now."""
    points, step_N = facts.number("eval", "points"), follower.numbers("step")
    ends = [stage.end["steps"] for stage in stages]
    if not points or not len(step_N) or not ends or not np.isfinite(ends).all():
        return set()
    due = looks_due([int(end) for end in ends], points)
    # The last step's own look may be on its way; steps before the first are another run's.
    return {step for step in due if step_N[0] <= step < step_N[-1]}


def exit_matrix(looks: Looks, stages: Sequence[StageView]) -> Matrix | None:
    """Loss by exit, over the looks; None if no look went by depth.

    Where there are more looks than columns, a column is the mean of some.
    """
    named = {key: _names(stages, *key) for key in set(_keys(looks))}
    rows = _rows(named, stages)
    if not rows:
        return None
    value, there = _filled(looks, named, rows)
    begin = columns_joined(looks.stage)
    last = np.append(begin[1:], len(looks.loss)) - 1
    broken = np.logical_or.reduceat(there & ~np.isfinite(value), begin, axis=1)
    first = next((s.begin for s in stages if s.number == looks.stage[0]), stages[0].begin)
    edges = Places(*(np.append(first[unit], looks.at.along(unit)[last]) for unit in ALONG))
    mean = mean_of_groups(value, begin)
    return Matrix(rows, edges, mean, broken, looks.stage[begin])


def _keys(looks: Looks) -> list[tuple[int, int]]:
    """The stage of each look, and how many exits it has; those of one key have the same names."""
    pairs = zip(looks.stage, looks.exits, strict=True)
    return [(int(stage), len(exits or ())) for stage, exits in pairs]


def _filled(
    looks: Looks, named: dict[tuple[int, int], list[str]], rows: Sequence[str]
) -> tuple[Numbers, NDArray[np.bool_]]:
    """Every loss at its row and column, and where there is one."""
    value = np.full((len(rows), len(looks.loss)), np.nan)
    there = np.zeros(value.shape, bool)
    number = {name: place for place, name in enumerate(rows)}
    places = {key: [number[name] for name in names] for key, names in named.items()}
    for column, (key, exits) in enumerate(zip(_keys(looks), looks.exits, strict=True)):
        if exits and places[key]:
            value[places[key], column], there[places[key], column] = exits, True
    return value, there


def _rows(named: dict[tuple[int, int], list[str]], stages: Sequence[StageView]) -> tuple[str, ...]:
    """The embedding and every block that any stage's path can have, left to right in the rack."""
    counts = [(len(n) - 1) // len(stages[stage].path) for (stage, _), n in named.items() if n]
    if not counts:
        return ()
    stacks = sorted({s for stage in stages for s in stage.path}, key=_in_order)
    return tuple(exit_names(stacks, 1 + max(counts) * len(stacks)))


def _in_order(stack: str) -> tuple[int, str]:
    digits = stack[1:]
    return (int(digits) if digits.isdecimal() else 1 << 30), stack


def _names(stages: Sequence[StageView], stage: int, exits: int) -> list[str]:
    """The exits of a look by name; none if its numbers do not belong to the stage's path."""
    if not 0 <= stage < len(stages):
        return []
    try:
        return exit_names(stages[stage].path, exits)
    except ValueError:
        return []
