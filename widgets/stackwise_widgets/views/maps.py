"""Attention maps as pictures: one head large with its tokens, all heads of the block small.

Rows are tokens that look, columns those that are looked at. Each row says in its tooltip what it
takes most from; the table behind holds the same. What is not seen is left blank, which is not the
same as a weight of nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stackwise_widgets.views import svg
from stackwise_widgets.views.markup import escaped, percent_said, shortened
from stackwise_widgets.views.png import matrix_png
from stackwise_widgets.views.tables import behind, table_html

SIDE, LEAST, WIDEST = 520.0, 7.0, 26.0  # of the map, and of one cell
TOP_FEW = 5  # tokens that a tooltip names
LETTER = 6.6  # pixels
MOST_HEADS = 32

Weights = NDArray[np.float64]


def attention_map_html(
    weights_HTS: Weights,
    tokens: Sequence[str],
    *,
    head: int | None = None,
    seen_TS: NDArray[np.bool_] | None = None,
    words: str = "attention",
    note: str = "",
) -> str:
    """The map of one block.

    Args:
        weights_HTS: What each token takes of each, by head.
        tokens: What stands for each token.
        head: The one that is shown large; None for the mean of all.
        seen_TS: Where a token may be seen at all; None for everywhere.
        words: What it is of.
        note: What a reader should know beside; empty for nothing.

    Returns:
        A `<figure>`, well-formed as XML too; each row is a `<rect>` with `data-query`.

    Raises:
        ValueError: If shapes do not fit, or there is no such head.
    """
    heads, length, _ = weights_HTS.shape
    if len(tokens) != length:
        raise ValueError(f"tokens: {len(tokens)} for a map of {length} x {length}")
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"head: {head} is none of the {heads} that there are")
    shown = weights_HTS if seen_TS is None else np.where(seen_TS, weights_HTS, np.nan)
    large = shown.mean(0) if head is None else shown[head]
    named = f"mean of {heads} heads" if head is None else f"head {head}"
    said = f"{words}, {named}: row by row, what each token takes of those it sees"
    drawn = _large(large, tokens, said)
    small = _small(shown, head)
    notes = f'<p class="sw-note">{escaped(note)}</p>' if note else ""
    return (
        f'<figure class="sw-view sw-map"><figcaption>{escaped(said)}</figcaption>'
        f'<div class="sw-side"><div class="sw-fixed sw-map-large">{drawn}</div>'
        f"<div>{small}</div></div>{notes}"
        f"{behind('The same as a table', _table(large, tokens))}</figure>"
    )


def spread_of(weights_TS: Weights) -> float:
    """Over how many tokens a row spreads, as exp of its entropy; NaN if a weight is negative."""
    if np.nanmin(weights_TS) < 0:
        return math.nan
    part = np.nan_to_num(weights_TS)
    entropy_T = -np.sum(part * np.log(np.where(part > 0, part, 1.0)), axis=1)
    return float(np.exp(entropy_T).mean())


def _limits(weights: Weights) -> tuple[float, float]:
    low, high = float(np.nanmin(weights)), float(np.nanmax(weights))
    return min(0.0, low), high if high > 0 else 1.0


def _large(weights_TS: Weights, tokens: Sequence[str], words: str) -> str:
    length = len(tokens)
    cell = min(WIDEST, max(LEAST, SIDE / length))
    names = [shortened(token, 10) for token in tokens]
    room = max(len(name) for name in names) * LETTER
    left, top, side = 24 + room, (28 + room if room > cell else 30.0), cell * length
    low, high = _limits(weights_TS)
    image = (
        f'<image href="{matrix_png(weights_TS, low, high)}" x="{svg.number(left)}" '
        f'y="{svg.number(top)}" width="{svg.number(side)}" height="{svg.number(side)}" '
        'preserveAspectRatio="none" style="image-rendering:pixelated"/>'
    )
    body = [svg.rect(left, top, side, side, "sw-map-blank"), image]
    body += _names(names, cell, left, top)
    body += _rows(weights_TS, tokens, cell, left, top)
    body += _scale(low, high, left, top + side + 14, min(side, 200))
    return svg.picture(left + side + 8, top + side + 44, words, body, small=True)


def _names(names: Sequence[str], cell: float, left: float, top: float) -> Iterator[str]:
    """Tokens along both sides, of very many some."""
    step = max(1, math.ceil(9 / cell))
    turned = max(map(len, names)) * LETTER > cell
    yield svg.label(left, 10, "is looked at", "sw-faint")
    yield svg.label(0, top - 6, "looks", "sw-faint")
    for place in range(0, len(names), step):
        middle = (place + 0.5) * cell
        yield svg.label(left - 4, top + middle + 3, names[place], "sw-map-token", at="end")
        x, y = svg.number(left + middle + 3), svg.number(top - 4)
        turn = f' transform="rotate(-90 {x} {y})"' if turned else ' text-anchor="middle"'
        yield f'<text class="sw-map-token" x="{x}" y="{y}"{turn}>{escaped(names[place])}</text>'


def _rows(
    weights_TS: Weights, tokens: Sequence[str], cell: float, left: float, top: float
) -> Iterator[str]:
    """A strip over each row that can be pointed at."""
    for place in range(len(tokens)):
        words = row_said(weights_TS[place], tokens, place)
        yield svg.rect(left, top + place * cell, cell * len(tokens), cell, "sw-map-row",
                       svg.title(words), data_query=place)  # fmt: skip


def row_said(weight_S: Weights, tokens: Sequence[str], place: int) -> str:
    """What one token takes most from, in words."""
    lines = [f"{tokens[place]} (place {place}) takes"]
    lines += [
        f"{percent_said(float(weight_S[at]))} of {tokens[at]} (place {at})"
        for at in most_taken(weight_S)
    ]
    return "\n".join(lines)


def most_taken(weight_S: Weights) -> list[int]:
    """The places of the largest weights, largest first."""
    known = np.where(np.isfinite(weight_S), weight_S, -np.inf)
    order = np.argsort(-known, kind="stable")[:TOP_FEW]
    return [int(at) for at in order if np.isfinite(weight_S[at])]


def _scale(low: float, high: float, left: float, y: float, width: float) -> Iterator[str]:
    """What the shades mean."""
    ramp = matrix_png(np.linspace(low, high, 64)[None], low, high)
    yield (
        f'<image href="{ramp}" x="{svg.number(left)}" y="{svg.number(y)}" '
        f'width="{svg.number(width)}" height="9" preserveAspectRatio="none"/>'
    )
    yield svg.label(left, y + 21, percent_said(low), "sw-faint")
    yield svg.label(left + width, y + 21, percent_said(high), "sw-faint", at="end")


def _small(shown_HTS: Weights, chosen: int | None) -> str:
    """All heads side by side, each on its own scale, and over how many tokens it spreads."""
    made = []
    for head, weights_TS in enumerate(shown_HTS[:MOST_HEADS]):
        spread = spread_of(weights_TS)
        over = f"over {spread:.1f} tokens" if math.isfinite(spread) else "has negative weights"
        ring = " sw-map-chosen" if head == chosen else ""
        source = matrix_png(weights_TS, *_limits(weights_TS))
        made.append(
            f'<div class="sw-map-small{ring}"><img src="{source}" '
            f'alt="head {head}, spread {over}"/><span>head {head}<br/>{over}</span></div>'
        )
    more = len(shown_HTS) - MOST_HEADS
    rest = f'<p class="sw-note">and {more} more heads</p>' if more > 0 else ""
    lead = '<p class="sw-lead">All heads of this block, each on its own scale</p>'
    return f'{lead}<div class="sw-map-all">{"".join(made)}</div>{rest}'


def _table(weights_TS: Weights, tokens: Sequence[str]) -> str:
    rows = []
    for place, token in enumerate(tokens):
        taken = [
            f"{percent_said(float(weights_TS[place, at]))} {tokens[at]} ({at})"
            for at in most_taken(weights_TS[place])
        ]
        rows.append([place, token, ", ".join(taken)])
    return table_html(["place", "looks", "takes most of"], rows, "What each token takes most of")
