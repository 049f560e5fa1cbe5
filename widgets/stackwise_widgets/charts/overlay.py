"""Runs laid over each other: held-out loss against what was spent on it, seeds as a band.

It draws nothing that is not in the frame of `overlaid.py`. One colour, one dash and one mark for
each experiment; the large mark is the final score on all held-out text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

import stackwise as sw
from stackwise_widgets.charts.brief import Brief
from stackwise_widgets.charts.overlaid import OVER, Over, over_seeds, overlay_data
from stackwise_widgets.charts.style import (
    TEXT,
    Theme,
    axis,
    byte_unit,
    look_of,
    mark_size,
    plain_layout,
)
from stackwise_widgets.charts.view import ALONG
from stackwise_widgets.views.markup import escaped

HEIGHT = 460
LATE = 1 / 6  # of what was spent; losses before it would flatten all after it
LEAST_SPAN = 0.05  # of a loss; less would make a picture of noise


def overlay(
    runs: Iterable[sw.Run | Brief | str | Path],
    x: Over = "flops",
    seeds_band: bool = True,
    theme: Theme = "auto",
) -> go.Figure:
    """Held-out loss of several runs, in bits per byte.

    Args:
        runs: Runs, their folders, or what was read of them.
        x: What runs along the axis; with `peak_bytes` each experiment is one point, its final loss.
        seeds_band: Seeds of one experiment as their mean in a band from the lowest to the highest;
            otherwise each run by itself.
        theme: `auto` can be read on a light page as on a dark one.

    Raises:
        ValueError: If `x` is none of those there are.
    """
    if x not in OVER:
        raise ValueError(f"x: {x!r} is not one of {', '.join(OVER)}")
    return drawn(overlay_data(runs), x, seeds_band, theme)


def drawn(
    data: pd.DataFrame, x: Over = "flops", seeds_band: bool = True, theme: Theme = "auto"
) -> go.Figure:
    """The same from the frame of `overlay_data`, which an axis switch need not read again."""
    if not seeds_band:
        data = data.assign(label=_each_alone(data))
    found = over_seeds(data, x)
    size, unit = byte_unit(found["place"].max()) if x == "peak_bytes" else (1, "")
    found["place"] = found["place"] / size
    seeds = found.groupby("label", sort=False)["runs"].first()
    traces = [
        trace
        for number, label in enumerate(dict.fromkeys(data["label"]))
        for trace in _traces(found[found["label"] == label], number, label, seeds[label], x, size)
    ]
    title = f"peak memory in training, {unit}" if x == "peak_bytes" else ALONG[x]
    return go.Figure(data=traces, layout=_layout(found, x, title, traces, theme))


def _each_alone(data: pd.DataFrame) -> pd.Series:
    """Labels that tell seeds apart."""
    runs = data.groupby("label")["run"].transform("nunique")
    alone = data["label"] + ", seed " + data["seed"].astype(str)
    return data["label"].where(runs == 1, alone)


def _traces(
    found: pd.DataFrame, number: int, label: str, seeds: int, x: Over, size: int
) -> Iterator[dict[str, Any]]:
    colour, mark, dash = look_of(number)
    group = {
        "legendgroup": escaped(label),
        "name": escaped(label) + (f" ({seeds} seeds)" if seeds > 1 else ""),
    }
    curve = found[(found["kind"] == "heldout") & (x != "peak_bytes")].sort_values("place")
    if seeds > 1:
        yield from _bands(curve, colour, group)
    good = bool(curve["mean"].notna().any())
    if good:
        yield {
            "type": "scatter", "mode": "lines+markers", **group, "x": _of(curve, "place"),
            "y": _of(curve, "mean"), "line": {"color": colour, "width": 1.8, "dash": dash},
            "marker": {"symbol": mark, "size": _sizes(curve)},
            "customdata": curve["stage"].to_numpy(),
            "hovertemplate": "%{y:.4f} bits per byte at %{x:.4s}<br>stage %{customdata}"
                             f"<extra>{group['name']}</extra>",
        }  # fmt: skip
    final = found[found["kind"] == "final"]
    if final["mean"].notna().any():
        yield _final(final, colour, mark, group, not good, x, size)


def _of(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].to_numpy(np.float64)


def _sizes(curve: pd.DataFrame) -> np.ndarray:
    """Marks are larger where a stage ends."""
    ends = (curve["stage"].diff(-1) != 0).to_numpy(copy=True)
    ends[-1:] = False
    small = mark_size(len(curve))
    return np.where(ends, small + 5, small)


def _bands(curve: pd.DataFrame, colour: str, group: dict[str, str]) -> Iterator[dict[str, Any]]:
    """From the lowest to the highest seed, one shape per stretch without a gap."""
    there = curve["mean"].notna()
    for _, part in curve[there].groupby((~there).cumsum()[there]):
        place, low, high = (_of(part, name) for name in ("place", "low", "high"))
        yield {
            "type": "scatter", "mode": "lines", "fill": "toself", "showlegend": False,
            "x": np.concatenate([place, place[::-1]]), "y": np.concatenate([high, low[::-1]]),
            "line": {"width": 0, "color": colour}, "opacity": 0.25, "hoverinfo": "skip",
            "fillcolor": colour, **group,
        }  # fmt: skip


def _final(
    final: pd.DataFrame, colour: str, mark: str, group: dict[str, str], alone: bool, x: Over,
    size: int,
) -> dict[str, Any]:  # fmt: skip
    """The score on all held-out text; with several seeds, bars to the lowest and the highest."""
    mean, low, high = (_of(final, name) for name in ("mean", "low", "high"))
    bars = {"visible": bool((high > low).any()), "color": colour, "thickness": 1.4}
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "markers", **group, "showlegend": alone,
        "x": _of(final, "place"), "y": mean,
        "marker": {"symbol": mark, "size": 14, "color": colour,
                   "line": {"width": 1.5, "color": TEXT["auto"]}},
        "error_y": {"type": "data", "array": high - mean, "arrayminus": mean - low, **bars},
        "hovertemplate": "%{y:.4f} bits per byte on all held-out text<br>at %{x:.4s}"
                         f"<extra>{group['name']}</extra>",
    }  # fmt: skip
    if x == "peak_bytes":
        place = _of(final, "place")
        ends = {"array": _of(final, "right") / size - place,
                "arrayminus": place - _of(final, "left") / size}  # fmt: skip
        trace["error_x"] = {"type": "data", **ends, **bars}
    return trace


def _layout(
    found: pd.DataFrame, x: Over, title: str, traces: list[dict[str, Any]], theme: Theme
) -> dict[str, Any]:
    shown = found if x != "peak_bytes" else found[found["kind"] == "final"]
    limits = _limits(shown)
    layout = {
        **plain_layout(theme),
        "height": HEIGHT,
        "margin": {"l": 66, "r": 16, "t": 24, "b": 48},
        "xaxis": axis(title, rangemode="tozero"),
        "yaxis": axis("held-out loss, bits per byte", range=limits),
        "legend": {"bgcolor": "rgba(0, 0, 0, 0)", "font": {"size": 11}},
    }
    if not traces:
        return {**layout, "annotations": [_words("no number to draw yet", 0.5, 0.5, "center")]}
    text = "large mark: score on all held-out text"
    if hidden := _without_curve(shown):
        text += f"; no curve where a loss is the share of a noise band, or of mlm: {hidden}"
    return {**layout, "annotations": [_words(text, 0.0, 1.01, "left")]}


def _words(text: str, x: float, y: float, anchor: str) -> dict[str, Any]:
    return {"text": escaped(text), "x": x, "y": y, "xref": "paper", "yref": "paper",
            "xanchor": anchor, "yanchor": "bottom", "showarrow": False,
            "font": {"size": 11}}  # fmt: skip


def _without_curve(found: pd.DataFrame) -> str:
    heldout = found[found["kind"] == "heldout"]
    good = heldout.groupby("label", sort=False)["seeds"].max()
    names = [str(label) for label in good.index[good == 0]]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _limits(found: pd.DataFrame) -> list[float] | None:
    """Everything from the first sixth on, and each final score; None: let the axis choose."""
    late = (found["place"] >= LATE * found["place"].max()) | (found["kind"] == "final")
    seen = found.loc[late, ["low", "high"]].to_numpy(np.float64)
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        return None
    low, high = float(seen.min()), float(seen.max())
    span = max(1.14 * (high - low), LEAST_SPAN * (low + high) / 2)
    return [(low + high - span) / 2, (low + high + span) / 2]
