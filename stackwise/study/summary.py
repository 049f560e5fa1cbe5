"""What a study says of each arm, as numbers: one row per arm. A pure function of its runs.

Differences are paired by seed, from the control. What an arm costs beside its own runs, the
learning-rate grid, stands in a column of its own. Nothing here raises for a run without a result:
it is missing, and counted as missing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

from stackwise.runs import Run
from stackwise.study.arms import Arm
from stackwise.study.controls import decays
from stackwise.study.curves import Look, bits_at, curve_of, flops_to, spent_by, step_of
from stackwise.study.grid import at_the_edge, tuning_flops
from stackwise.study.result import row_of
from stackwise.study.statistics import FEWEST, Paired, paired, seeds_needed

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.study.result import StudyResult

MOST_EPOCHS = 4.0  # over a text before repeating it costs (arXiv 2305.16264)
READINGS = ("flops", "tokens")
MEANS = ("flops", "tokens", "epochs", "parameters", "peak_bytes", "seconds")


def summary_of(result: StudyResult) -> pd.DataFrame:
    """One row per arm, as `StudyResult.summary` lists them."""
    import pandas as pd

    edges, spent = at_the_edge(result.tuning), tuning_flops(result.tuning)
    curves = {id(run): curve_of(run) for _, _, run in result.runs}
    readings = {unit: reading(result, unit, curves) for unit in READINGS}
    ranked = not kinds_differ(result)
    rows = []
    for name in names_in(result):
        mine = [(arm, seed, run) for arm, seed, run in result.runs if arm.name == name]
        told = [row_of(*entry) for entry in mine]
        bits = [
            value for value in (number(row["bits_per_byte"]) for row in told) if isfinite(value)
        ]
        compared = difference(result, name) if ranked else paired(())
        found = paired(bits)
        reached = to_target(result, name, curves)
        row: dict[str, Any] = {
            "arm": name,
            "is_control": name == result.control,
            "n": len(bits),
            "mean": found.mean,
            "std": found.sd,
            "difference": compared.mean,
            "low": compared.low,
            "high": compared.high,
            "judged": judged(result, name, compared),
            "lr": mine[0][2].experiment.optim.lr,
            **{key: mean([number(row[key]) for row in told]) for key in MEANS},
            "tuning_flops": spent.get(name, 0.0),
            "flops_to_target": mean(reached) if len(reached) == len(mine) else math.nan,
            "reached": len(reached),
        }
        for unit in READINGS:
            row[f"at_equal_{unit}"], row[f"{unit}_decayed"] = readings[unit][name]
        effect = compared.mean if result.effect is None else result.effect
        row["seeds_needed"] = seeds_needed(effect, compared.sd)
        row["flags"] = "; ".join(flags(result, name, row, edges))
        rows.append(row)
    return pd.DataFrame(rows)


def names_in(result: StudyResult) -> list[str]:
    """The arms, in the order of the study."""
    return list(dict.fromkeys(arm.name for arm, _, _ in result.runs))


def kinds_differ(result: StudyResult) -> bool:
    """Whether some figures are likelihoods and others bounds, so that nothing may be ranked."""
    notes = {run.result().get("note") for _, _, run in result.runs if run.result()}
    return len(notes) > 1


def difference(result: StudyResult, name: str) -> Paired:
    """An arm's paired differences from the control; none where a seed lacks a result."""
    return paired(list(differences(result, name).values()))


def differences(result: StudyResult, name: str) -> dict[int, float]:
    """The same, by seed."""
    if result.control is None or name == result.control:
        return {}
    own, control = bits_by_seed(result, name), bits_by_seed(result, result.control)
    return {seed: own[seed] - control[seed] for seed in own if seed in control}


def bits_by_seed(result: StudyResult, name: str) -> dict[int, float]:
    """What an arm came to with each seed that has a result."""
    found = {
        seed: number(run.result().get("bits_per_byte"))
        for arm, seed, run in result.runs
        if arm.name == name
    }
    return {seed: bits for seed, bits in found.items() if isfinite(bits)}


def judged(result: StudyResult, name: str, found: Paired) -> str:
    """What may be said of an arm beside the control: its interval leaves zero out, or not."""
    if name == result.control:
        return "control"
    if not found.n:
        return "no result" if result.control is not None else "no control"
    if found.n < FEWEST:
        return "too few seeds"
    if found.high < 0:
        return "better"
    return "worse" if found.low > 0 else "undecided"


def seeds_by_arm(result: StudyResult, effect: float | None) -> dict[str, int | None]:
    """The seeds that each arm's paired spread asks for."""
    found = {}
    for name in names_in(result):
        if name != result.control:
            seen = difference(result, name)
            found[name] = seeds_needed(seen.mean if effect is None else effect, seen.sd)
    return found


def to_target(result: StudyResult, name: str, curves: dict[int, list[Look]]) -> list[float]:
    """FLOPs to the control's last held-out measurement of the same seed, where it is reached."""
    targets = {
        seed: curves[id(run)][-1].bits_per_byte
        for arm, seed, run in result.runs
        if arm.name == result.control and curves[id(run)]
    }
    found = [
        flops_to(curves[id(run)], targets[seed])
        for arm, seed, run in result.runs
        if arm.name == name and seed in targets
    ]
    return [flops for flops in found if isfinite(flops)]


def reading(
    result: StudyResult, unit: str, curves: dict[int, list[Look]]
) -> dict[str, tuple[float, bool]]:
    """Each arm's mean bits per byte at equal FLOPs or tokens, and if all its runs had decayed.

    What was trained to be equal so is read from results; otherwise from the curves, at what the
    run that spent least had spent.
    """
    if unit == result.equal:
        return _of_results(result, result.runs)
    if unit in result.others:
        return _of_results(result, result.others[unit])
    ends = [spent_by(run, unit) for _, _, run in result.runs]
    least = min((end for end in ends if isfinite(end)), default=math.nan)
    found = {}
    for name in names_in(result):
        runs = [run for arm, _, run in result.runs if arm.name == name]
        slacks = [step_of(run, unit) for run in runs]
        bits = [
            bits_at(curves[id(run)], unit, least, slack)
            for run, slack in zip(runs, slacks, strict=True)
        ]
        ended = [
            isfinite(least) and spent_by(run, unit) <= least + 2 * slack
            for run, slack in zip(runs, slacks, strict=True)
        ]
        found[name] = mean(bits), all(ended) and all(decays(run.experiment) for run in runs)
    return found


def _of_results(
    result: StudyResult, runs: Sequence[tuple[Arm, int, Run]]
) -> dict[str, tuple[float, bool]]:
    found = {}
    for name in names_in(result):
        mine = [run for arm, _, run in runs if arm.name == name]
        bits = [number(run.result().get("bits_per_byte")) for run in mine]
        found[name] = mean(bits), bool(mine) and all(decays(run.experiment) for run in mine)
    return found


def flags(result: StudyResult, name: str, row: dict[str, Any], edges: dict[str, str]) -> list[str]:
    """What a reader of an arm's figures should know."""
    runs = [run for arm, _, run in result.runs if arm.name == name]
    said = []
    if row["epochs"] > MOST_EPOCHS:
        said.append(f"{row['epochs']:.1f} epochs over the text, more than {MOST_EPOCHS:.0f}")
    if name in edges:
        said.append(f"best rate is the {edges[name]} of its grid")
    if not all(decays(run.experiment) for run in runs):
        said.append("rate does not decay to zero")
    if row["n"] < len(runs):
        said.append(f"{len(runs) - row['n']} of {len(runs)} runs without a result")
    return said


def number(value: Any) -> float:
    """A number; NaN for what is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of none, or where one is not known."""
    return math.fsum(values) / len(values) if values else math.nan
