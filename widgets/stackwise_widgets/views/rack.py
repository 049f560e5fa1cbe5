"""A rack as a picture: the embedding at the bottom, the stacks above it in order, the head on top.

Each part shows how it stands, what its weights are kept in, their bytes and how many they are. The
facts are those of `rackparts.py`, or any mappings with the same keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from stackwise_widgets.views import svg
from stackwise_widgets.views.cells import STATES
from stackwise_widgets.views.legend import SWATCH, legend_html
from stackwise_widgets.views.markup import (
    bytes_said,
    count_said,
    escaped,
    key_of,
    said,
    shortened,
    stacks_said,
)
from stackwise_widgets.views.rackparts import rack_parts as rack_parts
from stackwise_widgets.views.tables import behind, table_html

WIDTH, LEFT, UNIT = 700.0, 14.0, 220.0
KEPT, BAR, BARS, COUNT = 250.0, 460.0, 130.0, 696.0  # where the columns beside the rack stand
TOP = 30.0
FEW = 26  # parts of which each has words of its own
WORDS: dict[str, str] = {name: words for name, (_, words) in STATES.items()}
WORDS["trained"] = "trained to the end"
ALIKE = ("state", "format", "dtype", "bytes", "parameters")


def rack_html(parts: Sequence[Mapping[str, Any]]) -> str:
    """A rack as a picture with a table.

    Args:
        parts: In the order in which a token meets them, embedding first. Keys: `name`, `state`
            (`active`, `trunk`, `suffix`, `held`, `absent`, `trained` or a word of your own),
            `format` (what it is frozen to), `dtype`, `bytes`, `parameters`; and, where known,
            `stage` and `beside`. What is missing or None is said to be not known.

    Returns:
        A `<figure>`, well-formed as XML too; each part is a `<rect data-part="s0">`.
    """
    if not parts:
        return (
            '<figure class="sw-view sw-rack"><figcaption>a rack without parts</figcaption></figure>'
        )
    few, key = len(parts) <= FEW, key_of([sorted(part.items(), key=str) for part in parts])
    tall = 27.0 if few else max(3.0, min(9.0, 520 / len(parts)))
    bottom = TOP + tall * len(parts)
    tops = {id(part): bottom - (i + 1) * tall for i, part in enumerate(parts)}
    most = max((_finite(part.get("bytes")) or 0 for part in parts), default=0)
    body = [*_frame(bottom)]
    body += [_unit(part, tops[id(part)], tall, key, few) for part in parts]
    for group in _told(list(_groups(parts, few)), tall, tops):
        body += _beside(group, tops[id(group[-1])], tall * len(group), most, few)
    hatched = [state for part in parts if (state := str(part.get("state"))) in svg.HATCHES]
    words = summary(parts)
    drawn = svg.picture(WIDTH, bottom + 12, words, body, defs=svg.hatches(key, hatched))
    tables = behind("The same as a table", _table(parts))
    return (
        f'<figure class="sw-view sw-rack"><figcaption>{escaped(words)}</figcaption>'
        f'<div class="sw-scroll">{drawn}</div>{_legend(parts, key)}{tables}</figure>'
    )


def summary(parts: Sequence[Mapping[str, Any]]) -> str:
    """A rack in one line."""
    stacks = [p for p in parts if p.get("name") not in ("embedding", "head")]
    there = [part for part in parts if part.get("state") != "absent"]
    held = sum(part.get("state") != "absent" for part in stacks)
    taken = [part.get("bytes") for part in there]
    known = sum(count for count in taken if count is not None)
    more = "" if None not in taken else " of those that are known"
    numbers = [part.get("parameters") for part in there]
    whole = None if None in numbers else sum(number for number in numbers if number is not None)
    return (
        f"{len(stacks)} stack{'s' * (len(stacks) != 1)}"
        f"{f', {held} of them there' if held < len(stacks) else ''}; "
        f"{count_said(whole)} parameters, {bytes_said(known)}{more}"
    )


def kept_said(part: Mapping[str, Any]) -> str:
    """What a part's weights are kept in: the format it is frozen to, else its dtype."""
    return str(part.get("format") or part.get("dtype") or "not known")


def _groups(parts: Sequence[Mapping[str, Any]], few: bool) -> Iterator[list[Mapping[str, Any]]]:
    """Parts that share one line of text: each by itself, or of many those next to each other."""
    if few:
        yield from ([part] for part in parts)
        return
    for _, group in groupby(parts, key=lambda part: [part.get(key) for key in ALIKE]):
        yield list(group)


def _told(
    groups: Sequence[list[Mapping[str, Any]]], tall: float, tops: Mapping[int, float]
) -> Iterator[list[Mapping[str, Any]]]:
    """The groups that have room for a line of text, the largest first."""
    taken: list[float] = []
    for group in sorted(groups, key=len, reverse=True):
        middle = tops[id(group[-1])] + tall * len(group) / 2
        if all(abs(middle - other) >= 15 for other in taken):
            taken.append(middle)
            yield group


def _finite(count: float | None) -> float | None:
    """A figure that can be drawn, or None."""
    return count if count is not None and math.isfinite(count) else None


def _frame(bottom: float) -> Iterator[str]:
    """The rails, and what the columns beside them are."""
    for x in (LEFT - 8, LEFT + UNIT + 2):
        yield svg.rect(x, TOP - 6, 6, bottom - TOP + 14, "sw-track")
    yield svg.label(KEPT, TOP - 12, "kept in", "sw-faint")
    yield svg.label(BAR, TOP - 12, "bytes", "sw-faint")
    yield svg.label(COUNT, TOP - 12, "parameters", "sw-faint", at="end")


def _unit(part: Mapping[str, Any], y: float, tall: float, key: str, few: bool) -> str:
    """One part in the rack, with its tooltip; its name and state where there is room."""
    state = str(part.get("state"))
    facts: dict[str, Any] = {"data_part": part.get("name"), "data_state": state}
    box, tip = (LEFT, y, UNIT, tall), svg.title(part_said(part))
    if not few and state in svg.HATCHES:
        return svg.rect(*box, "sw-cell", tip, fill=f"url(#{key}-{state})", **facts)
    made = svg.rect(*box, f"sw-cell {_kind(state)}", tip, **facts)
    if not few:
        return made
    if state in svg.HATCHES:
        made += svg.rect(LEFT + 1, y + 1, 9, tall - 2, "sw-mark", fill=f"url(#{key}-{state})")
    on, middle = " sw-on" if state in ("active", "trained") else "", y + tall / 2 + 4
    made += svg.label(LEFT + 18, middle, shortened(str(part.get("name")), 16), f"sw-mark{on}")
    words = "not there yet" if state == "absent" else shortened(state, 14)
    return made + svg.label(LEFT + UNIT - 10, middle, words, f"sw-mark{on}", at="end")


def _kind(state: str) -> str:
    return f"sw-{state}" if state in STATES else "sw-done" if state == "trained" else "sw-trunk"


def part_said(part: Mapping[str, Any]) -> str:
    """What a part's tooltip says."""
    state = str(part.get("state"))
    lines = [f"{part.get('name')}: {WORDS.get(state, state)}"]
    if part.get("stage") is not None:
        lines.append(f"last written in stage {part['stage']}")
    lines.append(f"kept in {kept_said(part)}, {bytes_said(part.get('bytes'))}")
    lines.append(f"{count_said(part.get('parameters'))} parameters")
    lines += [
        f"beside it: {kind} {bytes_said(n)}" for kind, n in (part.get("beside") or {}).items()
    ]
    return "\n".join(lines)


def _beside(
    group: Sequence[Mapping[str, Any]], y: float, tall: float, most: float, few: bool
) -> Iterator[str]:
    """What one part, or several that are alike, are kept in and take."""
    part, middle = group[0], y + tall / 2 + 4
    kept, count = kept_said(part), part.get("bytes")
    names = [str(part.get("name")) for part in group]
    named = "" if few else f"{stacks_said(names, names)}: "
    if len(group) > 1:
        yield svg.path(f"M{KEPT - 6} {svg.number(y + 2)}h3v{svg.number(tall - 4)}h-3", "sw-rule")
    if part.get("state") == "absent":
        yield svg.label(KEPT, middle, f"{named}not there yet", "sw-faint")
        return
    drawn, each = _finite(count), " each" if len(group) > 1 else ""
    if drawn is not None and most:
        yield svg.rect(BAR, middle + 2, max(0.5, BARS * drawn / most), 3, "sw-amount")
    yield svg.label(KEPT, middle, shortened(f"{named}{kept}", 34))
    yield svg.label(BAR, middle - 1, bytes_said(count) + each)
    yield svg.label(COUNT, middle, count_said(part.get("parameters")) + each, at="end")


def _legend(parts: Sequence[Mapping[str, Any]], key: str) -> str:
    """What the states that are shown look like."""
    entries = []
    for state in dict.fromkeys(str(part.get("state")) for part in parts):
        w, h = SWATCH
        hatched = state in svg.HATCHES
        fill = f"url(#{key}-{state})" if hatched else None
        kind = "" if hatched else f"{_kind(state)}{' sw-rule' * (state == 'absent')}"
        entries.append((svg.rect(0.5, 0.5, w - 1, h - 1, kind, fill=fill), WORDS.get(state, state)))
    return legend_html(entries)


def _table(parts: Sequence[Mapping[str, Any]]) -> str:
    """One line per part, from the embedding to the head."""
    head = ["part", "state", "last written in stage", "kept in", "bytes", "parameters", "beside it"]
    rows = [
        [
            part.get("name"),
            part.get("state"),
            said(part.get("stage"), str),
            kept_said(part),
            bytes_said(part.get("bytes")),
            count_said(part.get("parameters")),
            ", ".join(f"{kind} {bytes_said(n)}" for kind, n in (part.get("beside") or {}).items())
            or "-",
        ]
        for part in parts
    ]
    return table_html(head, rows, "The parts of the rack, in the order in which a token meets them")
