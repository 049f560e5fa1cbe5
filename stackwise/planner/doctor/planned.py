"""The plan beside what six runs took: peak memory and seconds of a step, at worst over and under.

A plan is over where it says more than was measured, under where it says less; both as a part of
what was measured. These are the error bars that the record keeps; of memory those of stages that
took `SMALL` bytes or more, if any did. Machines drift, so that rates are measured between runs and
after, and the runs' steps two times or three, if time lasts: a plan has the median of all rounds, a
step that of its runs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stackwise.planner.doctor.alone import ChildFailed
from stackwise.planner.doctor.checks import Finding, Visit
from stackwise.planner.doctor.predicted import rates, step_seconds
from stackwise.planner.doctor.record import SMALL
from stackwise.planner.doctor.shapes import SHAPES, measure, run

PEAK, TIME = (0.10, 0.05), (0.30, 0.30)  # how far a plan may be over, and under
TURNS, APART = 3, 1.1  # the third where a step of two runs differs by more
RESERVED = 120.0  # seconds for the checks that come after
Pair = tuple[str, float, float]  # a shape, what was planned, what was measured


def peaks(visit: Visit) -> Finding:
    """Whether runs take the memory that was planned."""
    began = time.monotonic()
    found = visit.results["shapes"] = measure(visit)
    visit.results["seconds of shapes"] = time.monotonic() - began
    stages = [(name, stage) for name, shape in found.items() for stage in shape["stages"]]
    told = [(name, stage["planned"], stage["peak"]) for name, stage in stages if stage["peak"]]
    pairs, figures = [pair for pair in told if pair[2] >= SMALL] or told, {"shapes": found}
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
    turns, rounds = [[seconds_of(shape["stages"]) for shape in shapes.values()]], []
    while True:
        began = time.monotonic()
        rounds.append(visit.call(rates, device=visit.device, folder=str(visit.folder)))
        turn = visit.results["seconds of shapes"] + time.monotonic() - began
        if len(turns) == TURNS or (len(turns) > 1 and alike(turns)):
            break
        if visit.seconds_left < turn + RESERVED:
            visit.tell(f"no time to make the runs more than {count_of(turns)}")
            break
        visit.tell("the same runs once more, and rates again")
        try:
            turns.append([seconds_of(run(visit, each)) for each in asked])
        except ChildFailed as error:
            visit.tell(f"{error}; what there is has to do")
            break
    planned = visit.call(step_seconds, runs=asked, rounds=rounds, device=visit.device)
    measured = [medians(of_run) for of_run in zip(*turns, strict=True)]
    pairs = list(_paired(shapes, planned, measured))
    bar = bar_of(pairs)
    visit.results["bar of time"] = bar
    words = f"{said(pairs)}; the runs were made {count_of(turns)}"
    return judged_times(words, bar, {"planned": planned, "measured": measured})


def count_of(turns: Sequence[object]) -> str:
    """How often, in words."""
    return ("once", "twice", "three times")[len(turns) - 1]


def seconds_of(stages: Sequence[Mapping[str, Any]]) -> list[float]:
    """Of a step of each stage of a run."""
    return [stage["seconds"] for stage in stages]


def medians(turns: Sequence[Sequence[float]]) -> list[float]:
    """Of a run's stages, over its turns."""
    return [statistics.median(each) for each in zip(*turns, strict=True)]


def alike(turns: Sequence[Sequence[Sequence[float]]]) -> bool:
    """Whether no stage's step took much longer in one turn than in another."""
    stages = (each for of_run in zip(*turns, strict=True) for each in zip(*of_run, strict=True))
    return all(max(each) <= APART * min(each) for each in stages)


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


def _paired(
    names: Iterable[str], planned: Sequence[Sequence[float]], measured: Sequence[Sequence[float]]
) -> Iterator[Pair]:
    for name, *both in zip(names, planned, measured, strict=True):
        yield from ((name, *each) for each in zip(*both, strict=True))


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
