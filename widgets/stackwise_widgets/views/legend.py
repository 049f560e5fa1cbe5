"""The legend under a picture: a swatch and words for each thing that is in it."""

from __future__ import annotations

from collections.abc import Iterable

from stackwise_widgets.views.markup import escaped

SWATCH = (20, 14)


def legend_html(entries: Iterable[tuple[str, str]]) -> str:
    """A list of swatches with their words.

    Args:
        entries: The inside of an SVG of 20 by 14, and what it means.
    """
    w, h = SWATCH
    made = (
        f'<li><svg width="{w}" height="{h}" viewBox="0 0 {w} {h}" aria-hidden="true">{inside}</svg>'
        f"<span>{escaped(words)}</span></li>"
        for inside, words in entries
    )
    return f'<ul class="sw-legend">{"".join(made)}</ul>'
