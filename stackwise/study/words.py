"""How a study's result is said: a line for each arm, and no more than the runs do say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.printing import printable
from stackwise.report import bytes_text, count_text, duration, figure, number, table
from stackwise.study.controls import decays
from stackwise.study.grid import tuning_flops
from stackwise.study.statistics import HEADLINE
from stackwise.study.summary import READINGS, names_in

if TYPE_CHECKING:
    from stackwise.study.result import StudyResult

MARKUP = re.compile(r"[\\`*<>\[\]|$&!]")
UNITS = {"flops": "FLOPs", "tokens": "tokens", "seconds": "seconds"}


def table_of(result: StudyResult, *, markdown: bool = False) -> str:
    """One line per arm; `*` marks a reading of runs whose learning rate had not decayed."""
    rows = result.summary().to_dict("records")
    tuned = any(row["tuning_flops"] for row in rows)
    readings = [unit for unit in READINGS if unit != result.equal]
    head = ["arm", "bits per byte", "from the control", "95 % interval", "judged"]
    head += [f"at equal {UNITS[unit]}" for unit in readings]
    head += ["seeds", "asked for", "FLOPs", *(["grid FLOPs", "rate"] if tuned else [])]
    head += ["FLOPs to target", "tokens", "epochs", "peak memory", "time"]
    cells = [_cells(row, readings, tuned) for row in rows]
    return _markdown(head, cells) if markdown else table(head, cells)


def _cells(row: Mapping[Any, Any], readings: Sequence[str], tuned: bool) -> list[str]:
    spread = f" ± {number(row['std'])}" if row["n"] > 1 else ""
    away = row["difference"]
    needed = row["seeds_needed"]
    return [
        row["arm"],
        number(row["mean"]) + spread,
        signed(away),
        "-" if math.isnan(row["low"]) else f"[{signed(row['low'])}, {signed(row['high'])}]",
        row["judged"],
        *(_reading(row, unit) for unit in readings),
        str(row["n"]),
        "-" if needed is None or needed != needed else f"{needed:.0f}",
        figure(row["flops"]),
        *([figure(row["tuning_flops"]), f"{row['lr']:g}"] if tuned else []),
        figure(row["flops_to_target"]),
        count_text(row["tokens"]),
        number(row["epochs"], 2) + ("!" if "epochs" in row["flags"] else ""),
        bytes_text(row["peak_bytes"]),
        "-" if math.isnan(row["seconds"]) else duration(row["seconds"]),
    ]


def _reading(row: Mapping[Any, Any], unit: str) -> str:
    bits = row[f"at_equal_{unit}"]
    mark = "" if math.isnan(bits) or row[f"{unit}_decayed"] else "*"
    return number(bits) + mark


def signed(value: float) -> str:
    """`+0.120`; a dash for what is not known."""
    return "-" if math.isnan(value) else f"{value:+.3f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    named = [[_plain(name), *cells] for name, *cells in rows]
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *named]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(name: str) -> str:
    """An arm's name, of which Markdown reads nothing as markup."""
    return MARKUP.sub(r"\\\g<0>", printable(" ".join(name.split())))


def remarks(result: StudyResult) -> list[str]:
    """What stands beside the figures: flags of arms, the grid's cost, what sharing saved."""
    return [*result.notes, *_of_arms(result), *_of_costs(result), *_failed(result)]


def _of_arms(result: StudyResult) -> Iterator[str]:
    rows = result.summary().to_dict("records")
    for row in rows:
        if row["flags"]:
            yield f"{row['arm']}: {row['flags']}"
    for unit in READINGS:
        early = [r["arm"] for r in rows if not r[f"{unit}_decayed"] and r["judged"] != "no result"]
        if unit != result.equal and unit not in result.others and early and len(rows) > 1:
            yield (
                f"at equal {UNITS[unit]}, read from curves before the learning rate had decayed, "
                f"which favours the others: {', '.join(early)}; Study(both=True) trains these runs"
            )


def _of_costs(result: StudyResult) -> Iterator[str]:
    spent = tuning_flops(result.tuning)
    if spent:
        rates = sorted({tried.rate for tried in result.tuning})
        shown = ", ".join(f"{rate:g}" for rate in rates)
        yield (
            f"learning rates: {shown}, tried on every arm with seed {result.tuning[0].seed}, for "
            f"{sum(spent.values()):.3g} FLOPs in all, which no arm's own FLOPs hold"
        )
    if result.saved_flops:
        yield (
            f"shared first stages saved {result.saved_flops:.3g} FLOPs; every arm's own FLOPs hold "
            "its full cost"
        )


def _failed(result: StudyResult) -> Iterator[str]:
    for failure in result.failures:
        yield f"no result: {failure}"


def verdict_of(result: StudyResult) -> str:
    """What may be said of a winner, and what of each arm beside the control."""
    said = ranking(result)
    flat = [arm for arm, _, _ in result.runs if not decays(arm.experiment)]
    if flat:
        schedules = dict.fromkeys(arm.experiment.optim.schedule for arm in flat)
        said += (
            f" Not a fair control: {', '.join(dict.fromkeys(arm.name for arm in flat))} trained at "
            f"optim.schedule={', '.join(schedules)}, whose learning rate does not decay to zero."
        )
    seeds = len({seed for _, seed, _ in result.runs})
    if result.control is not None and seeds > 1 and len(names_in(result)) > 1:
        said = " ".join([said, *_beside_control(result)])
    return said


def _beside_control(result: StudyResult) -> Iterator[str]:
    """Each arm under what may be said of it; the losses are named like the wins."""
    rows = [row for row in result.summary().to_dict("records") if not row["is_control"]]
    seeds = len({seed for _, seed, _ in result.runs})
    words = {
        "better": "better than {}",
        "worse": "worse than {}",
        "undecided": "not told apart from {}",
        "too few seeds": "with too few seeds to say, beside {}",
        "no result": "without a result to set beside {}",
    }
    parts = []
    for judged, text in words.items():
        mine = [_arm_text(row) for row in rows if row["judged"] == judged]
        if mine:
            parts.append(f"{text.format(result.control)}: {', '.join(mine)}")
    if parts:
        yield f"With 95 % intervals, {'; '.join(parts)}."
    asked = {row["arm"]: row["seeds_needed"] for row in rows}
    more = [
        f"{n:.0f} for {arm}" for arm, n in asked.items() if n is not None and n == n and n > seeds
    ]
    what = "a difference" if result.effect is None else f"{result.effect:g} bits per byte"
    if more:
        seen = "as large as measured " if result.effect is None else ""
        yield (
            f"To see {what} {seen}with probability 0.8, the measured spread asks for more seeds "
            f"than {seeds}: {', '.join(more)}."
        )
    if seeds < HEADLINE and any(row["judged"] in ("better", "worse") for row in rows):
        yield f"A headline needs {HEADLINE} seeds."


def _arm_text(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["difference"]):
        return str(row["arm"])
    between = "" if math.isnan(row["low"]) else f" ({signed(row['low'])} to {signed(row['high'])})"
    return f"{row['arm']} by {signed(row['difference'])}{between}"


def ranking(result: StudyResult) -> str:
    """The lowest mean, and how far the next is from it."""
    frame = result.to_frame()
    seeds = frame["seed"].nunique()
    bits = frame.assign(bits_per_byte=frame["bits_per_byte"].astype(float))
    means = bits.groupby("arm", sort=False)["bits_per_byte"].mean().sort_values()
    kinds = {arm.name: run.result().get("note") for arm, _, run in result.runs}
    if bits["bits_per_byte"].isna().any():
        return "Some runs hold no result, so nothing is ranked."
    if len(set(kinds.values())) > 1:
        said = "; ".join(f"{name}: {note}" for name, note in kinds.items())
        return f"The figures are of different kinds, so nothing is ranked. {said}."
    best = str(means.index[0])
    if len(means) < 2:
        over = f", mean of {seeds} seeds" if seeds > 1 else ""
        alone = "One arm has nothing to win against."
        return f"{best}: {means.iloc[0]:.3f} bits per byte{over}. {alone}"
    if seeds < 2:
        return (
            f"Lowest here: {best} at {means.iloc[0]:.3f} bits per byte. "
            "One seed names no winner: repeat with three or more."
        )
    wide = bits.pivot(index="seed", columns="arm", values="bits_per_byte")
    difference = wide[means.index[1]] - wide[best]
    error = difference.std(ddof=1) / seeds**0.5
    return (
        f"Lowest mean: {best} at {means.iloc[0]:.3f} bits per byte; {means.index[1]} is "
        f"{difference.mean():+.3f} ± {error:.3f} (paired over {seeds} seeds)"
        + (", too few to claim." if seeds < 3 else ".")
    )
