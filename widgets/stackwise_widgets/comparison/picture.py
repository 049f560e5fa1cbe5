"""Runs laid over each other as an SVG picture; `still.py` has the same as a figure for papers.

What is drawn is the frame of `charts.overlay_data`, over seeds as `charts` has it, so that picture,
paper figure and `charts.overlay` show the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from stackwise_widgets.charts.decimate import thin
from stackwise_widgets.charts.overlaid import Over, over_seeds, repeated
from stackwise_widgets.charts.style import byte_unit
from stackwise_widgets.charts.view import ALONG
from stackwise_widgets.paper import loss_limits
from stackwise_widgets.views.lines import Axes, Line, Point, lines_legend, lines_svg
from stackwise_widgets.views.markup import count_said, escaped, flops_said
from stackwise_widgets.views.tables import behind, table_html

# Of all curves together, and of each at least: points, and marks that can be pointed at.
MOST_POINTS, LEAST_POINTS, MOST_MARKS, LEAST_MARKS = 4000, 60, 240, 3
MOST_ROWS = 200  # of the table behind the picture; all of them are in `.data`


def overlay_html(data: pd.DataFrame, x: Over = "flops", seeds_band: bool = True) -> str:
    """Held-out loss of several runs against what was spent, with a legend and a table.

    Args:
        data: Of `overlay_data`.
        x: What runs along the axis; with `peak_bytes` each experiment is one point.
        seeds_band: Seeds of one experiment as their mean in a band; else each run by itself.

    Returns:
        A `<figure>`, well-formed as XML too.
    """
    if data.empty:
        words = "Tick the runs to compare in the table above."
        return f'<figure class="sw-view"><p class="sw-note">{words}</p></figure>'
    found, size, title = placed_over(data, x, seeds_band)
    many = found["label"].nunique()
    lines = [_line(name, part, x, size, many) for name, part in found.groupby("label", sort=False)]
    limits = limits_of(found, x)
    words = f"held-out loss of {len(lines)} experiment{'s' * (len(lines) != 1)} over {title}"
    aside = "" if x == "peak_bytes" else "final score"
    drawn = lines_svg(lines, Axes(title, "bits per byte", limits, aside=aside), words)
    legend = lines_legend(lines, [legend_said(name, found) for name in found["label"].unique()])
    said = [*_notes(found, x), *(_once(data) if seeds_band else ())]
    notes = "".join(f'<p class="sw-note">{escaped(note)}</p>' for note in said)
    table = behind("The same as a table", _table(found, x, title))
    return (
        f'<figure class="sw-view sw-overlay"><div class="sw-scroll">{drawn}</div>{legend}{notes}'
        f"{table}</figure>"
    )


def placed_over(data: pd.DataFrame, x: Over, seeds_band: bool) -> tuple[pd.DataFrame, int, str]:
    """Means over seeds at their places; bytes of one unit of the axis, and its title."""
    if not seeds_band:
        alone = data["label"] + ", seed " + data["seed"].astype(str)
        several = data.groupby("label")["run"].transform("nunique") > 1
        data = data.assign(label=data["label"].where(~several, alone))
        # Of two runs with the same seed, the second is told by its id.
        again = data.groupby("label")["run"].transform("nunique") > 1
        data = data.assign(label=data["label"].where(~again, data["label"] + ", " + data["run"]))
    found = over_seeds(data, x)
    size, unit = byte_unit(found["place"].max()) if x == "peak_bytes" else (1, "")
    found["place"] = found["place"] / size
    title = f"peak memory in training, {unit}" if x == "peak_bytes" else ALONG[x]
    return found, size, title


def limits_of(found: pd.DataFrame, x: Over = "flops") -> tuple[float, float] | None:
    """Bits per byte to show: early losses would flatten all after them; as in a study's figure.

    Of what is drawn alone: with `peak_bytes` that is the final scores.
    """
    named = found.rename(columns={"place": "flops"})
    curves = (named["kind"] == "heldout") & (x != "peak_bytes")
    return loss_limits(named[curves], named[named["kind"] == "final"])


def _line(name: object, part: pd.DataFrame, x: Over, size: int, many: int) -> Line:
    """One of `many` experiments."""
    curve = part[(part["kind"] == "heldout") & (x != "peak_bytes")].sort_values("place")
    curve = _kept(curve, many)
    ends = (curve["stage"].diff(-1) != 0).to_numpy(copy=True)
    ends[-1:] = False
    final = part[(part["kind"] == "final") & part["mean"].notna()]
    looks = zip(curve.itertuples(), ends, _marked(len(curve), many), strict=True)
    points = [
        Point(row.place, row.mean, _look_said(name, row, x, bool(end)) if marked or end else "",
              bool(end))
        for row, end, marked in looks
    ]  # fmt: skip
    band = [(r.place, r.low, r.high) for r in curve.itertuples() if r.runs > 1]
    last = [
        Point(row.place, row.mean, f"{name}\n{row.mean:.4f} bits per byte on all held-out text, "
              f"at {_at(row.place, x)}", True)
        for row in final.itertuples()
    ]  # fmt: skip
    spread = [
        (r.left / size, r.right / size, r.mean) for r in final.itertuples() if x == "peak_bytes"
    ]
    return Line(str(name), points, band, last, spread)


def _look_said(name: object, row: Any, x: Over, end: bool) -> str:
    """The tooltip of one look."""
    said = f"{name}\n{row.mean:.4f} bits per byte at {_at(row.place, x)}, stage {row.stage:g}"
    return said + (", where it ends" if end else "")


def _kept(curve: pd.DataFrame, many: int) -> pd.DataFrame:
    """The looks that are drawn: of very many, those that shape the curve, and ends of stages."""
    kept = thin(curve["mean"].to_numpy(float), max(LEAST_POINTS, MOST_POINTS // many))
    ends = np.flatnonzero(np.diff(curve["stage"].to_numpy(float)) != 0)
    return curve.iloc[np.union1d(kept, ends).astype(int)]


def _marked(count: int, many: int) -> Iterator[bool]:
    """Which looks of a curve have a mark that can be pointed at."""
    every = max(1, -(-count // max(LEAST_MARKS, MOST_MARKS // many)))
    return (place % every == every - 1 for place in range(count))


def _at(place: float, x: Over) -> str:
    """A place along the axis, in words."""
    unit = {"steps": "steps", "tokens": "tokens", "flops": "FLOPs", "seconds": "s",
            "peak_bytes": "of peak memory"}[x]  # fmt: skip
    said = flops_said(place) if x == "flops" else f"{place:.4g}"
    if x in ("steps", "tokens"):
        said = count_said(place)
    return f"{said} {unit}"


def legend_said(name: str, found: pd.DataFrame) -> str:
    """An experiment in the legend: its name, its seeds, its final score."""
    final = found[(found["label"] == name) & (found["kind"] == "final")]
    runs = int(found.loc[found["label"] == name, "runs"].max())
    seeds = f", {runs} seeds" if runs > 1 else ""
    if final.empty or not math.isfinite(final["mean"].iloc[0]):
        return f"{name}{seeds}: no final score"
    mean, low, high = (float(final[key].iloc[0]) for key in ("mean", "low", "high"))
    spread = f" ({low:.4f} to {high:.4f})" if runs > 1 else ""
    return f"{name}{seeds}: {mean:.4f}{spread}"


def _notes(found: pd.DataFrame, x: Over) -> Iterator[str]:
    yield (
        "Marks: score on all held-out text; a line reaches over the memory of its seeds."
        if x == "peak_bytes"
        else "Curves: the windows of each look; larger marks: a stage ends. At the right: the "
        "score on all held-out text."
    )
    heldout = found[found["kind"] == "heldout"]
    good = heldout.groupby("label", sort=False)["seeds"].max()
    none = [str(label) for label in good.index[good == 0]]
    if none and x != "peak_bytes":
        more = f" and {len(none) - 3} more" if len(none) > 3 else ""
        yield (
            f"No curve of {', '.join(none[:3])}{more}: a loss there is the share of a noise band, "
            "or mlm's, and only the final score can be set against others."
        )


def _once(data: pd.DataFrame) -> Iterator[str]:
    """Which runs are no seeds of their own."""
    again = [f"{run} (as {first})" for run, first in repeated(data).items()]
    if again:
        more = f" and {len(again) - 3} more" if len(again) > 3 else ""
        yield (
            f"Left out, since the same experiment with the same seed is drawn already: "
            f"{', '.join(again[:3])}{more}."
        )


def _table(found: pd.DataFrame, x: Over, title: str) -> str:
    rows = [
        [r.label, "final" if r.kind == "final" else "look", f"{r.place:.6g}", _number(r.mean),
         _number(r.low), _number(r.high), int(r.runs)]
        for r in found.head(MOST_ROWS).itertuples()
    ]  # fmt: skip
    head = ["experiment", "measured at", title, "bits per byte", "lowest", "highest", "runs"]
    more = f"; the first {MOST_ROWS} of {len(found)} rows" if len(found) > MOST_ROWS else ""
    return table_html(head, rows, f"Held-out loss, mean over seeds{more}")


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"
