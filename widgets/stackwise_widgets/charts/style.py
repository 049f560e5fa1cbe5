"""Colours, fonts and the common layout of every plotly chart here.

Backgrounds are left open, so that a chart stands on a light page as on a dark one, and text is of a
middle grey that can be read on both; a known theme gets more contrast. No colour carries a meaning
alone: curves differ in dash or mark, bars in their pattern too.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from stackwise_widgets.curve_looks import place_of
from stackwise_widgets.paper import CATEGORIES, COLOURS, MARKERS

Theme = Literal["auto", "light", "dark"]

BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY = COLOURS[:6]
# Okabe-Ito's black cannot be seen on a dark page; a middle grey can on both.
LINES = (BLUE, VERMILLION, GREEN, PINK, ORANGE, SKY, "#888888")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = dict(zip(MARKERS, ("circle", "square", "triangle-up", "diamond", "triangle-down",
                             "cross", "x"), strict=True))  # fmt: skip
MARKS = tuple(SYMBOLS.values())
KINDS = (*CATEGORIES, "other")
KIND_COLOURS = dict(zip(KINDS, (BLUE, ORANGE, GREEN, PINK, SKY, "#888888"), strict=True))
KIND_PATTERNS = dict(zip(KINDS, ("", "/", "x", ".", "\\", "|"), strict=True))
KIND_HATCHES = dict(zip(KINDS, ("", "//", "xx", "..", "\\\\", "||"), strict=True))
HEAT = "Cividis"  # the same to eyes that do not tell red from green, and monotone in grey
TEXT = {"auto": "#7b7b7b", "light": "#333333", "dark": "#d4d4d4"}
GRID = "rgba(128, 128, 128, 0.22)"
BORDER = "rgba(128, 128, 128, 0.85)"
PLANNED = "rgba(128, 128, 128, 0.45)"
CLEAR = "rgba(0, 0, 0, 0)"
FONT = "system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif"


def plain_layout(theme: Theme = "auto") -> dict[str, Any]:
    """What every chart shares."""
    return {
        "template": "none",
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": FONT, "size": 12, "color": TEXT[theme]},
        "hovermode": "closest",
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "namelength": -1},
        "uirevision": "kept",  # what the reader zoomed into stays when numbers come
        "autosize": True,
    }


def axis(title: str, colour: str | None = None, **more: Any) -> dict[str, Any]:
    """An axis with a title, of a colour if it is of one curve, thin grid lines and no box."""
    font = {"size": 12} if colour is None else {"size": 12, "color": colour}
    return {
        "title": {"text": title, "font": font, "standoff": 6},
        "gridcolor": GRID,
        "linecolor": GRID,
        "tickcolor": GRID,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": False,
        "exponentformat": "SI",
        **more,
    }


def look_of(number: int) -> tuple[str, str, str]:
    """Colour, mark and dash of a curve, as plotly names them."""
    colour, mark, dash = place_of(number)
    return LINES[colour], MARKS[mark], DASHES[dash]


def mark_size(points: int) -> int:
    """How large the marks of a curve are; many would hide it, so that they shrink and vanish."""
    return 6 if points <= 60 else 4 if points <= 150 else 2


def byte_unit(largest: float) -> tuple[int, str]:
    """The largest binary unit in which `largest` is at least 1, up to GiB: how many bytes, name."""
    power = min(3, int(math.log(largest, 1024))) if largest >= 1 else 0
    return 1024**power, ("B", "KiB", "MiB", "GiB")[power]
