"""Where each stage lies along a run, what is left of it, and what memory it takes.

What has happened is taken from the metrics; what has not, from the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from stackwise.runs.following import Follower
from stackwise_widgets.charts.facts import Facts
from stackwise_widgets.charts.view import ALONG, Along, Places, StageView

COLUMN: dict[Along, str] = {
    "steps": "step",
    "tokens": "tokens",
    "flops": "flops",
    "seconds": "seconds",
}


def places_of(follower: Follower) -> Places:
    """Where every step of the metrics lies."""
    return Places(*(follower.numbers(COLUMN[unit]) for unit in ALONG))


def stages_seen(
    facts: Facts, follower: Follower, *, finished: bool, seconds_left: float | None
) -> tuple[StageView, ...]:
    """The stages of a run, each from where the one before it ends.

    Args:
        facts: Of its folder.
        follower: What happened.
        finished: Whether the run is.
        seconds_left: To the end of the run; shared out by the FLOPs that are left.
    """
    places, stage_N = places_of(follower), follower.numbers("stage")
    measured = {
        event["stage"]: event
        for event in follower.events
        if event.get("kind") == "memory" and type(event.get("stage")) is int
    }
    begin, rate = dict.fromkeys(ALONG, 0.0), _seconds_per_flop(places)
    out: list[StageView] = []
    for number, stage in enumerate(facts.stages):
        plan = facts.plan.get(number, {})
        planned = _planned(stage, plan, facts.step_tokens(stage), rate)
        rows = np.flatnonzero(stage_N == number)
        last = _last(places, rows)
        begun_later = bool(len(stage_N)) and stage_N[-1] > number
        full = bool(last) and last["steps"] >= begin["steps"] + planned["steps"]
        done = bool(last) and (finished or begun_later or full)
        end = last if last and done else {u: begin[u] + planned[u] for u in ALONG}
        out.append(
            StageView(
                number=number,
                state="done" if done else "running" if last else "waiting",
                begin=begin,
                end=end,
                **{key: stage[key] for key in ("name", "path", "active", "band", "tokens")},
                **_memory(plan, measured.get(number, {})),
            )
        )
        begin = end
    return _with_seconds_left(out, _last(places, np.arange(len(stage_N))), seconds_left)


def _seconds_per_flop(places: Places) -> float:
    if not len(places.flops) or not places.flops[-1] > 0:
        return math.nan
    return float(places.seconds[-1] / places.flops[-1])


def _planned(
    stage: Mapping[str, Any], plan: Mapping[str, Any], step_tokens: int | None, rate: float
) -> dict[Along, float]:
    """What a stage takes of each unit."""
    tokens = stage["tokens"]
    steps = math.nan if tokens is None or not step_tokens else float(tokens // step_tokens)
    flops = number_or_nan(plan.get("flops"))
    read = steps * step_tokens if step_tokens else math.nan
    return {"steps": steps, "tokens": read, "flops": flops, "seconds": flops * rate}


def _last(places: Places, rows: Any) -> dict[Along, float]:
    return {unit: float(places.along(unit)[rows[-1]]) for unit in ALONG} if len(rows) else {}


def _memory(plan: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    found = plan.get("bytes")
    predicted: dict[str, Any] = found if isinstance(found, dict) else {}
    kinds = [kind for kind in predicted if kind != "total"]
    return {
        "predicted": {kind: number_or_nan(predicted[kind]) for kind in kinds},
        "measured": {kind: number_or_none(seen.get(kind)) for kind in kinds} if seen else {},
        "predicted_peak": number_or_none(plan.get("peak_bytes")),
        "measured_peak": number_or_none(seen.get("peak")),
    }


def _with_seconds_left(
    stages: list[StageView], now: Mapping[Along, float], seconds_left: float | None
) -> tuple[StageView, ...]:
    spent = now.get("flops", 0.0)
    left = [
        0.0
        if stage.state == "done"
        else max(0.0, stage.end["flops"] - max(spent, stage.begin["flops"]))
        for stage in stages
    ]
    whole = sum(left)
    if seconds_left is None or not (math.isfinite(whole) and math.isfinite(seconds_left)):
        return tuple(replace(s, seconds_left=0.0 if s.state == "done" else None) for s in stages)
    share = seconds_left / whole if whole else 0.0
    return tuple(replace(s, seconds_left=f * share) for s, f in zip(stages, left, strict=True))


def number_or_nan(value: Any) -> float:
    """A number of a file; NaN for what is none, or is beyond all floats."""
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.nan


def number_or_none(value: Any) -> float | None:
    """A number of a file; None for what is none."""
    found = number_or_nan(value)
    return None if math.isnan(found) else found
