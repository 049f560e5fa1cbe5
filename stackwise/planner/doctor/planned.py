"""The plan beside what six runs took: peak memory and seconds of a step, at worst over and under.

A plan is over where it says more than was measured, under where it says less; both as a part of
what was measured. These are the error bars that the record keeps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stackwise.planner.doctor.checks import Finding, Visit
from stackwise.planner.doctor.predicted import step_seconds
from stackwise.planner.doctor.shapes import SHAPES, measure

PEAK, TIME = (0.10, 0.05), (0.30, 0.30)  # how far a plan may be over, and under
Pair = tuple[str, float, float]  # a shape, what was planned, what was measured


def peaks(visit: Visit) -> Finding:
    """Whether runs take the memory that was planned."""
    found = visit.results["shapes"] = measure(visit)
    stages = [(name, stage) for name, shape in found.items() for stage in shape["stages"]]
    pairs = [(name, stage["planned"], stage["peak"]) for name, stage in stages if stage["peak"]]
    figures = {"shapes": found}
    if not pairs:
        why = "this system does not tell the peak of a process's memory"
        return Finding("skipped", why, figures=figures)
    bar = bar_of(pairs)
    visit.results["bar of peak"] = bar
    words = said(pairs)
    if left := [name for name in SHAPES if name not in found]:
        words += f"; left out, since this machine is slow or busy: {', '.join(left)}"
    return judged_peaks(words, bar, figures)


def judged_peaks(words: str, bar: Mapping[str, Any], figures: Mapping[str, Any]) -> Finding:
    """Plans of memory, judged by their bar; `words` tell it."""
    figures = {**figures, "bar": bar}
    if within(bar, PEAK):
        means = "a run takes the memory that its plan says, within these bars"
        return Finding("ok", words, means, figures=figures)
    share = 1 / (1 - bar["under_frac"])
    to_do = "close what else is running and try again"
    if bar["under_frac"] > PEAK[1]:
        to_do += f"; else count on {share:.2f} times the memory that a plan says"
    means = f"plans of memory are further off here than {PEAK[0]:.0%} over or {PEAK[1]:.0%} under"
    return Finding("failed", words, means, to_do, figures)


def times(visit: Visit) -> Finding:
    """Whether steps take the time that was planned."""
    shapes = visit.results.get("shapes", {})
    if not shapes:
        return Finding("skipped", "no run could be measured")
    asked = [{key: shape[key] for key in ("experiment", "placement")} for shape in shapes.values()]
    planned = visit.call(step_seconds, runs=asked, device=visit.device, folder=str(visit.folder))
    pairs = list(_paired(shapes, planned))
    bar = bar_of(pairs)
    visit.results["bar of time"] = bar
    return judged_times(said(pairs), bar, {"planned": planned})


def judged_times(words: str, bar: Mapping[str, Any], figures: Mapping[str, Any]) -> Finding:
    """Plans of time, judged by their bar; `words` tell it."""
    figures = {**figures, "bar": bar}
    if within(bar, TIME):
        means = "a step takes the time that its plan says, within these bars"
        return Finding("ok", words, means, figures=figures)
    return Finding(
        "failed",
        words,
        f"plans of time are further off here than {TIME[0]:.0%} over or under",
        "close what else is running and try again; else take the bars into account",
        figures,
    )


def _paired(shapes: Mapping[str, Any], planned: Sequence[Sequence[float]]) -> Iterator[Pair]:
    for (name, shape), seconds in zip(shapes.items(), planned, strict=True):
        for stage, each in zip(shape["stages"], seconds, strict=True):
            yield name, each, stage["seconds"]


def bar_of(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The worst of them: `over_frac`, `under_frac`, and of how many `figures`."""
    return bar_of_ratios([planned / measured for _, planned, measured in pairs])


def bar_of_ratios(ratios: Sequence[float]) -> dict[str, Any]:
    """The same of what was planned over what was measured."""
    off = [ratio - 1 for ratio in ratios]
    return {"over_frac": max(0.0, *off), "under_frac": max(0.0, *(-x for x in off))} | {
        "figures": len(off)
    }


def within(bar: Mapping[str, Any], most: tuple[float, float]) -> bool:
    """Whether a bar is as narrow as it should be."""
    return bool(bar["over_frac"] <= most[0] and bar["under_frac"] <= most[1])


def said(pairs: Sequence[Pair]) -> str:
    """The worst of them in words, and where they were."""
    off = sorted((planned / measured - 1, name) for name, planned, measured in pairs)
    words = []
    if off[-1][0] > 0:
        words.append(f"at most {off[-1][0]:.1%} over ({off[-1][1]})")
    if off[0][0] < 0:
        words.append(f"at most {-off[0][0]:.1%} under ({off[0][1]})")
    count = f"{len(pairs)} stages of {len({name for name, *_ in pairs})} runs"
    return f"{count}: the plan is {' and '.join(words) or 'exact'}"
