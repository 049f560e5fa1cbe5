"""A plan as a picture: the memory of each stage by category, against what the machine has.

What it all comes to stands beside it in the words of the plan itself. Bars are those of each
stage's highest moment, so that they add up to its peak; the bracket is how far such plans were off.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackwise.planner.shown import totals
from stackwise_widgets.views.markup import (
    bytes_said,
    count_said,
    days_said,
    disk_said,
    escaped,
    flops_said,
    stacks_said,
)
from stackwise_widgets.views.membars import CATEGORIES, bars_html, categories_of
from stackwise_widgets.views.tables import behind, table_html

if TYPE_CHECKING:
    from stackwise import Plan

HOUR = 3600.0


def plan_html(plan: Plan) -> str:
    """What an experiment takes on a machine: a picture, sums, whether it fits, and a table.

    Args:
        plan: Of `sw.plan`.

    Returns:
        A `<figure>`, well-formed as XML too. Each stage is a `<g data-stage="3">` whose bars are
        `<rect>`s with `data-category` and `data-bytes`.
    """
    return (
        f'<figure class="sw-view sw-plan"><figcaption>{escaped(plan_summary(plan))}</figcaption>'
        f"{_verdict(plan)}{bars_html(plan)}{_sums(plan)}"
        f"{behind('The same as a table', _table(plan))}</figure>"
    )


def plan_summary(plan: Plan) -> str:
    """A plan in one line, for a header."""
    machine, count = plan.hardware, len(plan.rows)
    fits = "fits" if plan.fits else "does not fit"
    said = [
        f"{fits} {'this machine' if machine.name == 'this' else machine.name}",
        f"{bytes_said(plan.peak_bytes)} of {bytes_said(machine.memory_bytes)}",
        "time not known" if math.isnan(plan.days) else days_said(plan.days),
        f"{count:,} stage{'s' * (count > 1)}",
        f"{count_said(plan.tokens)} tokens",
        f"{flops_said(plan.flops)} FLOPs",
    ]
    return ", ".join(said)


def _verdict(plan: Plan) -> str:
    """Whether it fits; if not, why, and what to change."""
    if plan.fits:
        return '<p class="sw-verdict sw-fits">fits</p>'
    why = "".join(f"<li>{escaped(problem)}</li>" for problem in plan.problems)
    ways = "".join(f"<li>change: {escaped(advice)}</li>" for advice in plan.advice)
    none = "<li>no settings that are known here make it fit: take a smaller rack</li>"
    return f'<p class="sw-verdict sw-not">does not fit</p><ul>{why}{ways or none}</ul>'


def _sums(plan: Plan) -> str:
    """What it all comes to: memory, host, disk, time, compute, the end-to-end control, accuracy."""
    pairs = (f"<dt>{escaped(name)}</dt><dd>{escaped(said)}</dd>" for name, said in totals(plan))
    return f'<dl class="sw-sums">{"".join(pairs)}</dl>'


def _table(plan: Plan) -> str:
    """One line per stage, and one for the same rack trained end to end."""
    head = ["stage", "name", "trains", "tokens", "steps", "peak", "at", *CATEGORIES]
    head += ["host", "hours", "FLOPs"]
    lines = list(_lines(plan))
    if plan.experiment.curriculum.choice != "end_to_end":
        whole = plan.end_to_end
        found = [bytes_said(count) for count in categories_of(whole).values()]
        peak = [bytes_said(whole["peak_bytes"]), whole["peak_at"]]
        said = ["all parts", count_said(whole["tokens"]), "-", *peak, *found, "-", "-"]
        lines.append(["-", "end to end", *said, flops_said(whole["flops"])])
    return table_html(head, lines, "What each stage takes at its highest moment")


def _lines(plan: Plan) -> Iterator[list[object]]:
    order = [f"s{i}" for i in range(plan.experiment.rack.stacks)]
    names = ["embedding", *order, "head"]
    for row in plan.rows:
        trains = [name for name in names if name in set(row["trains"])]
        seconds = sum(row["seconds"].values()) if row["seconds"] else None
        yield [
            row["stage"],
            row["name"],
            stacks_said(trains, names),
            count_said(row["tokens"]),
            f"{row['steps']:,}",
            bytes_said(row["peak_bytes"]),
            row["peak_at"],
            *(bytes_said(count) for count in categories_of(row).values()),
            disk_said(sum(row["host"].values())),
            "not known" if seconds is None else f"{seconds / HOUR:.3g}",
            flops_said(row["flops"]),
        ]
