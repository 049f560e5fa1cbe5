"""Bars of memory, one per stage, stacked by category, against a line for what the machine has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.planner.bars import between
from stackwise_widgets.views import svg
from stackwise_widgets.views.chosen import MOST
from stackwise_widgets.views.legend import legend_html
from stackwise_widgets.views.markup import attributes, bytes_said, key_of, shortened

if TYPE_CHECKING:
    from stackwise import Plan

# What each category of `row["peak"]` is shown as, in the order in which bars are stacked.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "weights": ("weights",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "average": ("average",),
    "activations": ("activations",),
    "temporaries": ("temporaries",),
    "other": ("slots", "other", "device"),
}
LIGHT_ON = ("weights", "gradients", "optimizer")  # white text can be read on these
WIDTH, LEFT, RIGHT, TOP = 760.0, 96.0, 640.0, 30.0
FAR = 4.0  # times the largest bar: a machine that has more is told in words at the edge
NICE = (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100, 128, 200, 256, 500, 512)


def categories_of(row: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of a stage's highest moment, by category as they are shown; they add up to its peak."""
    peak = row["peak"]
    return {name: sum(peak.get(key, 0) for key in keys) for name, keys in CATEGORIES.items()}


def bars_html(plan: Plan) -> str:
    """The picture with its legend. Of more than 128 stages those that take most are shown."""
    rows = shown_of(plan.rows)
    tall = 22.0 if len(rows) <= 12 else 14.0 if len(rows) <= 30 else 6.5
    most, memory = max(row["peak_bytes"] for row in rows), plan.hardware.memory_bytes
    _, high = between(most, plan.bars.of_peak(most))
    longest = max(most, high, memory if memory <= FAR * most else 0) * 1.04
    key = key_of(plan.experiment.hash, plan.placement, plan.hardware.name, len(rows))
    bottom = TOP + tall * len(rows)
    parts = [
        *_scale(longest, bottom),
        *_over(memory, longest, bottom, key),
        *(_stage(row, tall, i, longest) for i, row in enumerate(rows)),
        *_labels(rows, tall),
        *_bracket(plan, rows, tall, longest),
        *_card(plan, longest, bottom),
    ]
    words = f"memory of {len(rows)} stages by category"
    defs = svg.hatches(key, ["over"])
    drawn = svg.picture(WIDTH, bottom + 26, words, parts, defs=defs)
    left = len(plan.rows) - len(rows)
    note = f'<p class="sw-note">{left:,} stages that take less are in the table alone</p>'
    legend = _legend(rows, bool(_bracketed(plan, rows, tall)))
    return f'<div class="sw-scroll">{drawn}</div>{legend}{note if left else ""}'


def shown_of(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that get a bar: all, or the ones that take most, in their order."""
    taking = sorted(rows, key=lambda row: -row["peak_bytes"])[:MOST]
    return sorted(taking, key=lambda row: row["stage"])


def _x(count: float, longest: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(count / longest, 1.0)


def _scale(longest: float, bottom: float) -> Iterator[str]:
    """An axis of bytes with about four lines, at whole numbers of a binary unit."""
    unit = 1024 ** max(p for p in range(6) if p == 0 or longest / 1024**p >= 1.5)
    step = unit * next((n for n in NICE if longest / unit / n <= 6), NICE[-1])
    yield svg.path(f"M{LEFT} {TOP}V{svg.number(bottom)}", "sw-rule")
    for n in range(int(longest // step) + 1):
        x = svg.number(_x(n * step, longest))
        yield svg.path(f"M{x} {TOP - 4}V{svg.number(bottom)}", "sw-thin")
        yield svg.label(float(x), bottom + 14, bytes_said(n * step), "sw-faint", at="middle")


def _over(memory: float, longest: float, bottom: float, key: str) -> Iterator[str]:
    """What is beyond the machine's memory, as a hatch."""
    if memory < longest:
        x = _x(memory, longest)
        fill = f"url(#{key}-over)"
        yield svg.rect(x, TOP, RIGHT - x, bottom - TOP, "sw-mark", fill=fill)


def _stage(row: Mapping[str, Any], tall: float, place: int, longest: float) -> str:
    """One stage's bar, its categories one after the other."""
    y, gap, done, parts = TOP + place * tall, 3.0 if tall > 10 else 0.8, 0.0, []
    for name, count in categories_of(row).items():
        left, right = _x(done, longest), _x(done + count, longest)
        done += count
        if count:
            tip = f"stage {row['stage']} ({row['name']}): {name} {bytes_said(count)}"
            facts: dict[str, Any] = {"data_category": name, "data_bytes": count}
            box = (left, y + gap / 2, right - left, tall - gap)
            parts.append(svg.rect(*box, f"sw-bar sw-{name}", svg.title(tip), **facts))
            if tall > 20 and right - left > 6 * len(name) + 8:
                on = "sw-mark sw-faint sw-on-bar" + " sw-on" * (name in LIGHT_ON)
                parts.append(
                    svg.label((left + right) / 2, y + tall / 2 + 3.5, name, on, at="middle")
                )
    whole = f"{bytes_said(row['peak_bytes'])} at its {row['peak_at']}"
    tip = svg.title(f"stage {row['stage']} ({row['name']}): {whole}")
    if tall > 10:
        parts.append(svg.label(RIGHT + 8, y + tall / 2 + 4, bytes_said(row["peak_bytes"])))
    return f"<g{attributes(data_stage=row['stage'])}>{tip}{''.join(parts)}</g>"


def _labels(rows: Sequence[Mapping[str, Any]], tall: float) -> Iterator[str]:
    """Names of stages, of many some; over the figures what they are."""
    yield svg.label(0, TOP - 10, "stage", "sw-faint")
    if tall > 10:
        yield svg.label(RIGHT + 8, TOP - 10, "peak", "sw-faint")
    last = float("-inf")
    for place, row in enumerate(rows):
        y = TOP + place * tall + tall / 2
        wanted = tall > 10 or row["stage"] % 10 == 0 or place == len(rows) - 1
        if wanted and y - last >= 12:
            yield svg.label(0, y + 4, shortened(f"{row['stage']} {row['name']}", 14))
            last = y


def _bracketed(plan: Plan, rows: Sequence[Mapping[str, Any]], tall: float) -> list[int]:
    """The rows that get a bracket: those of which it is known how far such plans were off."""
    known = [i for i, row in enumerate(rows) if plan.bars.of_peak(row["peak_bytes"]) is not None]
    return known if tall > 10 or not known else [max(known, key=lambda i: rows[i]["peak_bytes"])]


def _bracket(
    plan: Plan, rows: Sequence[Mapping[str, Any]], tall: float, longest: float
) -> Iterator[str]:
    """What may be measured instead: at every bar, or at the longest where bars are thin."""
    for place in _bracketed(plan, rows, tall):
        count = rows[place]["peak_bytes"]
        around = between(count, plan.bars.of_peak(count))
        low, high = (svg.number(_x(value, longest)) for value in around)
        y, half = TOP + place * tall + tall / 2, min(4.0, tall / 2)
        ends = "".join(f"M{x} {svg.number(y - half)}v{svg.number(2 * half)}" for x in (low, high))
        yield svg.path(f"M{low} {svg.number(y)}H{high}{ends}", "sw-error")


def _card(plan: Plan, longest: float, bottom: float) -> Iterator[str]:
    """A line for what the machine has; at the edge and in words where that is far beyond."""
    machine = plan.hardware
    has = f"{machine.name} has {bytes_said(machine.memory_bytes)}"
    if machine.memory_bytes > longest:
        yield svg.label(RIGHT, TOP - 14, f"{has}, far to the right →", "sw-strong", at="end")
        return
    x = _x(machine.memory_bytes, longest)
    yield svg.path(f"M{svg.number(x)} {TOP - 8}V{svg.number(bottom + 2)}", "sw-card")
    at = "end" if x > (LEFT + RIGHT) / 2 else "start"
    yield svg.label(x, TOP - 14, has, "sw-strong", at=at)


def _legend(rows: Sequence[Mapping[str, Any]], bracketed: bool) -> str:
    """The categories that are there, in the order in which they are stacked."""
    there = {name for row in rows for name, count in categories_of(row).items() if count}
    words = {
        "average": "moving average",
        "activations": "activations kept for backward",
        "temporaries": "temporaries of the work in hand",
        "other": "batches, slots of lent blocks, device and allocator",
    }
    entries = [
        (svg.rect(0, 0, 20, 14, f"sw-bar sw-{name}"), words.get(name, name))
        for name in CATEGORIES
        if name in there
    ]
    bracket = svg.path("M2 7H18M2 3v8M18 3v8", "sw-error")
    off = [(bracket, "how far such plans were off")] if bracketed else []
    return legend_html([*entries, *off])
