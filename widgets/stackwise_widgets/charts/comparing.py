"""Whether runs may be compared, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import stackwise as sw
from stackwise.runs.damage import RunError
from stackwise_widgets.charts.brief import Brief, briefs_of

SPENT_APART = 0.02  # budgets end at whole steps, so that equal ones differ by a little
MOST_NAMES = 3
WINDOWS = ("eval.windows", "eval.final", "eval.draws")


def comparable(runs: Iterable[sw.Run | Brief | str | Path]) -> list[str]:
    """Why numbers of these runs cannot be set against each other; empty if nothing speaks against.

    Args:
        runs: Runs, their folders, or what was read of them.

    Returns:
        Sentences, gravest first: damaged and unfinished runs, other data, another held-out part,
        another tokenizer, another kind of figure, forks beside others, unequal compute.
    """
    briefs = briefs_of(runs)
    data = {brief.id: _data(brief) for brief in briefs}
    good = [brief for brief in briefs if brief.state != "damaged"]
    return [
        *_unready(briefs),
        *_apart(good, lambda b: data[b.id].get("fingerprint"), "they saw other data",
                _corpus(data)),
        *_apart(good, lambda b: data[b.id].get("heldout_bytes"),
                "they were measured on other held-out text", _heldout(data)),
        *_apart(good, lambda b: _windows(b) if b.asked else None,
                "they were measured on other windows of the held-out text", _windows),
        *_apart(good, lambda b: data[b.id].get("tokenizer_size"), "they have other tokenizers, so "
                "that bits per byte can be compared and nats per token cannot", _tokens(data)),
        *_apart([b for b in good if b.result], lambda b: b.result.get("note"),
                "their figures are of other kinds", lambda b: str(b.result.get("note"))),
        *_forks(good),
        *_spent(good),
    ]  # fmt: skip


def _data(brief: Brief) -> dict[str, Any]:
    """What provenance says of the data; nothing if it cannot be read."""
    try:
        found = brief.run.provenance().get("data") if brief.run else None
    except (RunError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _unready(briefs: list[Brief]) -> list[str]:
    out = [f"{b.id} is damaged: {b.problem}" for b in briefs if b.state == "damaged"]
    states: dict[str, list[str]] = {}
    for brief in briefs:
        if brief.state not in ("finished", "damaged"):
            states.setdefault(brief.state, []).append(brief.id)
    return out + [f"not finished: {_names(ids)} ({state})" for state, ids in states.items()]


def _apart(
    briefs: list[Brief],
    key: Callable[[Brief], Any],
    why: str,
    said: Callable[[Brief], str],
) -> list[str]:
    """One sentence if there is more than one group; runs whose key is not known are in none."""
    groups: dict[Any, list[Brief]] = {}
    for brief in briefs:
        found = key(brief)
        if found is not None:
            groups.setdefault(found, []).append(brief)
    if len(groups) < 2:
        return []
    parts = [f"{said(group[0])}: {_names([b.id for b in group])}" for group in groups.values()]
    return [f"{why}; {'; '.join(parts)}"]


def _corpus(data: dict[str, dict[str, Any]]) -> Callable[[Brief], str]:
    return lambda b: f"{data[b.id].get('corpus')} {str(data[b.id].get('fingerprint'))[:8]}"


def _tokens(data: dict[str, dict[str, Any]]) -> Callable[[Brief], str]:
    return lambda b: f"{data[b.id].get('tokenizer_size')} tokens"


def _heldout(data: dict[str, dict[str, Any]]) -> Callable[[Brief], str]:
    return lambda b: f"{data[b.id].get('heldout_bytes')} bytes"


def _windows(brief: Brief) -> str:
    return ", ".join(f"{key} {brief.asked.get(key)}" for key in WINDOWS)


def _forks(briefs: list[Brief]) -> list[str]:
    """Which runs are forks, unless all begin at the same place, so that each has what others have.

    What a fork did not train itself is in its numbers, and may have been asked for otherwise.
    """
    if len({brief.origin for brief in briefs}) < 2:
        return []
    forks = [f"{b.id} is a fork {b.origin}" for b in briefs if b.origin]
    return [f"not all were trained from the beginning: {_names(forks)}"]


def _spent(briefs: list[Brief]) -> list[str]:
    spent = {b.id: b.number("flops") for b in briefs if b.number("flops") > 0}
    if not spent:
        return []
    low, high = min(spent, key=spent.__getitem__), max(spent, key=spent.__getitem__)
    if spent[high] <= spent[low] * (1 + SPENT_APART):
        return []
    return [
        f"they spent unequal compute, from {spent[low]:.3g} FLOPs ({low}) to "
        f"{spent[high]:.3g} ({high})"
    ]


def _names(ids: list[str]) -> str:
    more = len(ids) - MOST_NAMES
    return ", ".join(ids[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
