"""What went wrong in a run, and how it ended, as marks at places along it.

A loss that is no number, a look that gave none, a loss that ran away, a run that failed or died.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from stackwise.runs.following import Follower
from stackwise_widgets.charts.looks import Looks
from stackwise_widgets.charts.stretches import places_of
from stackwise_widgets.charts.view import ALONG, Along, Mark, Numbers, Places

# How the trainer names a step that it refused: `step 7 (stage 1, s1): the loss is nan; ...`
REFUSED = re.compile(r"\bstep (\d+) \(stage \d+,.*?\): the (loss|gradient norm) is (nan|-?inf)")
RAN_AWAY = 3.0  # times the lowest running mean of its stage
WORDS = {"nan": "NaN", "inf": "infinite", "-inf": "infinite"}


def marks_of(follower: Follower, looks: Looks, smooth_N: Numbers, state: str) -> tuple[Mark, ...]:
    """Everything that is to be marked, in the order of the run."""
    places = places_of(follower)
    found = [
        *_no_number(places, follower.numbers("loss"), ""),
        *_no_number(looks.at, np.where(_is_gap(looks), 0.0, looks.loss), "held-out loss "),
        *_ran_away(places, follower.numbers("stage"), smooth_N),
        *_ended(follower, places, state),
    ]
    return tuple(sorted(found, key=lambda mark: mark.at["steps"]))


def _is_gap(looks: Looks) -> Any:
    return np.array([exits is None for exits in looks.exits], bool)


def _no_number(places: Places, value: Numbers, what: str) -> Iterator[Mark]:
    bad = np.flatnonzero(~np.isfinite(value))
    if len(bad):
        word = "NaN" if np.isnan(value[bad[0]]) else "infinite"
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        yield Mark(f"{what}{word} at step {places.steps[bad[0]]:.0f}{more}", _at(places, bad[0]))


def _ran_away(places: Places, stage_N: Numbers, smooth_N: Numbers) -> Iterator[Mark]:
    """The first step whose running mean is far above the best of its stage, and above its start."""
    edges = [0, *(np.flatnonzero(np.diff(stage_N)) + 1), len(stage_N)]
    for first, last in pairwise(edges):
        mean = smooth_N[first:last]
        good = np.flatnonzero(np.isfinite(mean))
        if not len(good):
            continue
        mean = mean[good]
        lowest = np.minimum.accumulate(mean)
        high = np.flatnonzero((mean > RAN_AWAY * lowest) & (mean > mean[0]) & (lowest > 0))
        if len(high):
            row = first + good[high[0]]
            yield Mark(f"diverged at step {places.steps[row]:.0f}", _at(places, row))
            return


def _ended(follower: Follower, places: Places, state: str) -> Iterator[Mark]:
    """How a run ended that is neither finished nor going on."""
    at = _at(places, -1) if len(places.steps) else dict.fromkeys(ALONG, 0.0)
    if state == "failed":
        failed = [e for e in follower.events if e.get("kind") == "failed"]
        refused = REFUSED.search(str(failed[-1].get("error", ""))) if failed else None
        if refused:
            step, what, value = refused.groups()
            name = "" if what == "loss" else "gradient norm "
            yield Mark(f"{name}{WORDS[value]} at step {step}", {**at, "steps": float(step)})
        else:
            yield Mark(f"failed after step {at['steps']:.0f}", at)
    elif state in ("died", "stopped"):
        yield Mark(f"{state} after step {at['steps']:.0f}", at, grave=state == "died")


def _at(places: Places, row: Any) -> dict[Along, float]:
    return {unit: float(places.along(unit)[row]) for unit in ALONG}
