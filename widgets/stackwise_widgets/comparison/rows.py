"""Runs as rows of the table: what is shown of each, what it is sorted by, what a filter finds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stackwise as sw
from stackwise.report import duration
from stackwise_widgets.charts.brief import Brief, briefs_in, briefs_of, differing
from stackwise_widgets.charts.listing import CAME_TO
from stackwise_widgets.views.markup import bytes_said, clean, flops_said, shortened

DISK = "disk_bytes"
LONGEST = 60  # letters of one cell
TITLES = {
    "bits_per_byte": ("bits per byte", "final loss, on all held-out text"),
    "flops": ("FLOPs", "spent on training, head included"),
    "peak_bytes": ("peak memory", "the most that training held at once, measured"),
    "seconds": ("time", "in training steps"),
    DISK: ("disk", "what its folder takes now; a file with two names counts once"),
}


@dataclass(frozen=True)
class Listed:
    """A run in the list.

    Attributes:
        key: Names it among the others: its id, with its folder where two have the same.
        brief: What was read of it.
        tags, note: Its labels.
        disk_bytes: What its folder takes; None where it cannot be read.
    """

    key: str
    brief: Brief
    tags: tuple[str, ...] = ()
    note: str = ""
    disk_bytes: int | None = None


@dataclass(frozen=True)
class Shown:
    """The table as it is drawn: plain values that can be sent to a page.

    Attributes:
        columns: `key`, `title`, `tip`, `number` (whether it is one).
        rows: `key`, `name`, `state`, `problem`, `tags`, `cells` (text by column) and `sort`
            (numbers or text by column; None is last).
    """

    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def listed(where: Sequence[str | Path | sw.Run]) -> list[Listed]:
    """Every run of some folders, or some runs; newest first within a folder.

    Args:
        where: A folder of runs, a run's own folder, or a run.
    """
    briefs = [brief for place in where for brief in _found(place)]
    ids = [brief.id for brief in briefs]
    out, seen = [], set()
    for brief in briefs:
        key = clean(brief.id if ids.count(brief.id) == 1 else f"{_folder(brief)}/{brief.id}")
        if key in seen:
            continue
        seen.add(key)
        labels = brief.run.labels if brief.run is not None else None
        tags, note = (labels.tags, labels.note) if labels else ((), "")
        disk = brief.run.disk()["bytes"] if brief.run is not None else None
        out.append(Listed(key, brief, tags, note, disk))
    return out


def _found(place: str | Path | sw.Run) -> list[Brief]:
    if isinstance(place, sw.Run) or (Path(place) / "stages.json").is_file():
        return briefs_of([place])
    return briefs_in(place)


def _folder(brief: Brief) -> str:
    return brief.path.resolve().parent.name


def chosen_by(found: Iterable[Listed], text: str = "", state: str = "all") -> list[Listed]:
    """Those that a filter leaves.

    Args:
        found: Runs.
        text: Words that each have to be in the id, name, tags, note, state or a value of the
            experiment; `key:word` looks at the values of keys with that ending alone, or with that
            title in the table.
        state: Of the run; `all` for any.
    """
    words = text.casefold().split()
    return [one for one in found if state in ("all", one.brief.state) and _has(one, words)]


def _has(one: Listed, words: Sequence[str]) -> bool:
    asked, brief = one.brief.asked, one.brief
    plain = [one.key, brief.name, *one.tags, one.note, brief.state, *map(str, asked.values())]
    text = "\n".join(plain).casefold()
    for word in words:
        key, colon, value = word.partition(":")
        inside = [str(v).casefold() for k, v in asked.items() if _is_of(k.casefold(), key)]
        if colon and inside:
            if not any(value in found for found in inside):
                return False
        elif word not in text:
            return False
    return True


def _is_of(key: str, word: str) -> bool:
    """Whether a setting's key ends so, or heads its column so."""
    return key.endswith(word) or _last_word(key) == word


def shown(found: Sequence[Listed]) -> Shown:
    """The table of some runs: only those settings in which they differ have a column."""
    briefs = [one.brief for one in found]
    keys = differing(briefs)
    last = [_last_word(key) for key in keys]
    columns = [_column(key, *TITLES[key], number=True) for key in (*CAME_TO, DISK)]
    columns += [
        _column(key, word if last.count(word) == 1 else key, key)
        for key, word in zip(keys, last, strict=True)
    ]
    return Shown(columns, [_row(one, keys) for one in found])


def _column(key: str, title: str, tip: str, number: bool = False) -> dict[str, Any]:
    return {"key": key, "title": title, "tip": tip, "number": number}


def _last_word(key: str) -> str:
    """What a setting is called: the section itself where it is the section's choice."""
    section, _, word = key.rpartition(".")
    return section.rpartition(".")[2] if section and word in ("name", "kind") else word


def _row(one: Listed, keys: Sequence[str]) -> dict[str, Any]:
    brief = one.brief
    cells = {key: _text(brief.asked[key]) for key in keys if key in brief.asked}
    sort: dict[str, Any] = {key: _sortable(brief.asked[key]) for key in cells}
    for key in (*CAME_TO, DISK):
        value = brief.number(key) if key != DISK else float(one.disk_bytes or math.nan)
        cells[key] = _figure(key, value)
        sort[key] = value if math.isfinite(value) else None
    return {
        "key": one.key,
        "name": clean(brief.name),
        "id": clean(brief.id),
        "state": clean(brief.state),
        "problem": clean(brief.problem or ""),
        "tags": [clean(tag) for tag in one.tags],
        "cells": cells,
        "sort": sort,
    }


def _figure(key: str, value: float) -> str:
    """What a run came to, in words; empty where it did not."""
    if not math.isfinite(value):
        return ""
    said = {
        "bits_per_byte": lambda v: f"{v:.4f}",
        "flops": flops_said,
        "peak_bytes": bytes_said,
        DISK: bytes_said,
        "seconds": duration,
    }
    return str(said[key](value))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    return shortened(clean(value), LONGEST)


def _sortable(value: Any) -> float | str:
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return clean(value)


def states_in(found: Iterable[Listed]) -> Mapping[str, int]:
    """How many runs there are of each state."""
    out: dict[str, int] = {}
    for one in found:
        out[one.brief.state] = out.get(one.brief.state, 0) + 1
    return out
