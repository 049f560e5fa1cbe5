"""What a study came to: its verdict, each arm beside the control, and what a reader should know.

Everything is said by `StudyResult`; nothing is worked out here. Losses stand beside wins. The
figure for a paper is that of `paired.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.study.words import UNITS, remarks, signed
from stackwise_widgets.views import svg
from stackwise_widgets.views.markup import bytes_said, escaped, flops_said
from stackwise_widgets.views.tables import table_html

if TYPE_CHECKING:
    from stackwise.study import StudyResult

HEAD = ("arm", "bits per byte", "from the control", "95 % interval", "judged", "seeds",
        "asked for", "rate", "FLOPs", "grid FLOPs", "peak memory")  # fmt: skip
ROW, NAMES, TRACK, TOP = 24.0, 190.0, 420.0, 22.0
LETTERS = 28  # of an arm's name beside its row


def study_html(result: StudyResult) -> str:
    """A study's verdict, paired differences with their intervals, a table and remarks.

    Returns:
        A `<figure>`, well-formed as XML too. Each arm is a `<g data-arm="name">`.

    Raises:
        ExperimentError: If the runs saw different data.
    """
    rows = result.summary().to_dict("records")
    control = result.control or "none"
    said = f"A study at equal {UNITS[result.equal]}, {len(rows)} arms; control: {control}"
    notes = "".join(f"<li>{escaped(remark)}</li>" for remark in remarks(result))
    return (
        f'<figure class="sw-view sw-study"><figcaption>{escaped(said)}</figcaption>'
        f'<p class="sw-said">{escaped(result.verdict())}</p>{_picture(rows, control)}'
        f'<div class="sw-scroll">{table_html(HEAD, [*_lines(rows)], "Each arm, mean of its seeds")}'
        f"</div>{f'<ul>{notes}</ul>' if notes else ''}</figure>"
    )


def _lines(rows: Sequence[Mapping[Any, Any]]) -> Iterator[list[object]]:
    for row in rows:
        spread = f" ± {row['std']:.3f}" if row["n"] > 1 else ""
        mean, asked = row["mean"], row["seeds_needed"]
        yield [
            row["arm"],
            f"{mean:.3f}{spread}" if math.isfinite(mean) else "no result",
            signed(row["difference"]),
            _interval(row),
            row["judged"],
            row["n"],
            "-" if asked is None or asked != asked else f"{asked:.0f}",
            f"{row['lr']:g}",
            flops_said(row["flops"]),
            flops_said(row["tuning_flops"]) if row["tuning_flops"] else "none",
            "-" if math.isnan(row["peak_bytes"]) else bytes_said(row["peak_bytes"]),
        ]


def _interval(row: Mapping[Any, Any]) -> str:
    low, high = row["low"], row["high"]
    return f"{signed(low)} to {signed(high)}" if math.isfinite(low) else "-"


def _picture(rows: Sequence[Mapping[Any, Any]], control: str) -> str:
    """Differences from the control: a diamond for the mean, a line for the interval."""
    told = [row for row in rows if math.isfinite(row["difference"])]
    if not told:
        return ""
    ends = [row[key] for row in told for key in ("difference", "low", "high")]
    ends = [0.0, *(end for end in ends if math.isfinite(end))]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0

    def at(bits: float) -> float:
        return NAMES + 12 + (bits - low) / span * (TRACK - 24)

    bottom = TOP + ROW * len(told)
    zero = svg.number(at(0.0))
    parts = [svg.path(f"M{zero} {TOP - 4}V{svg.number(bottom)}", "sw-rule")]
    parts.append(svg.label(at(0.0), TOP - 8, control[:LETTERS], "sw-faint", at="middle"))
    parts += [_row(row, TOP + ROW * n + ROW / 2, at) for n, row in enumerate(told)]
    words = "Differences from the control in bits per byte; to the left is better"
    parts.append(svg.label(NAMES + TRACK / 2, bottom + 14, words, "sw-faint", at="middle"))
    return svg.picture(NAMES + TRACK + 130, bottom + 20, words, parts)


def _row(row: Mapping[Any, Any], y: float, at: Any) -> str:
    name, x = row["arm"], at(row["difference"])
    shown = name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"
    parts = [svg.title(f"{name}: {signed(row['difference'])}, {_interval(row)}, {row['judged']}")]
    parts.append(svg.label(NAMES - 6, y + 4, shown, at="end"))
    if math.isfinite(row["low"]):
        left, right, middle = (svg.number(v) for v in (at(row["low"]), at(row["high"]), y))
        parts.append(svg.path(f"M{left} {middle}H{right}", "sw-error"))
    point = f"M{svg.number(x)} {svg.number(y - 4)}l4 4l-4 4l-4 -4z"
    parts.append(svg.path(point, "sw-active"))
    parts.append(svg.label(NAMES + TRACK + 8, y + 4, row["judged"], "sw-faint"))
    return f'<g data-arm="{escaped(name)}">{"".join(parts)}</g>'
