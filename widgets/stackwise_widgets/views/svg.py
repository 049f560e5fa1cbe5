"""The few shapes that the pictures are made of, as SVG text that is well-formed XML."""

from __future__ import annotations

from collections.abc import Iterable

from stackwise_widgets.views.markup import attributes, escaped

# Hatches, by what they mean: a tile's side, the path in it, and the classes of line and ground.
# Which way lines lean says on which side of the active stacks it is; dashes, that it is read from
# elsewhere as it is needed.
HATCHES: dict[str, tuple[float, str, str, str]] = {
    "trunk": (5, "M-1 1L1 -1M0 5L5 0M4 6L6 4", "sw-line-trunk", "sw-trunk"),
    "trunk-streamed": (6, "M1 5L3 3M4 2L5 1", "sw-line-trunk", "sw-trunk"),
    "trunk-cached": (5, "M0 2.5H3", "sw-line-trunk", "sw-trunk"),
    "suffix": (5, "M-1 4L1 6M0 0L5 5M4 -1L6 1", "sw-line-suffix", "sw-suffix"),
    "suffix-streamed": (6, "M1 1L3 3M4 4L5 5", "sw-line-suffix", "sw-suffix"),
    "adapter": (6, "M0 3H6M3 0V6", "sw-line-adapter", "sw-adapter"),
    "adapter-streamed": (6, "M1 3H5M3 1V5", "sw-line-adapter", "sw-adapter"),
    "held": (6, "M2.5 3H3.5", "sw-line-trunk", "sw-held"),
    "drawn": (5, "M1.5 1.5H3.5V3.5H1.5Z", "sw-line-drawn", "sw-active"),
    "over": (4, "M0 2H4M2 0V4", "sw-line-over", "sw-held"),
}


def number(value: float) -> str:
    """A coordinate with at most two digits after the point."""
    return f"{round(value, 2):g}" if abs(value) < 1e5 else f"{round(value)}"


def picture(
    width: float,
    height: float,
    words: str,
    parts: Iterable[str],
    *,
    defs: str = "",
    small: bool = False,
    **more: object,
) -> str:
    """An SVG picture that fills its place in a page, with words for those who listen.

    Args:
        width: In its own units; it grows to 1.3 times as many pixels.
        height: The same.
        words: What it shows.
        parts: Shapes.
        defs: Of `hatches`.
        small: Whether it may be made narrower than can be read without scrolling.
        more: Further attributes.
    """
    kind = "sw-svg sw-small" if small else "sw-svg"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" '
        f'viewBox="0 0 {number(width)} {number(height)}" '
        f'style="max-width:{number((1 if small else 1.3) * width)}px" '
        f'aria-label="{escaped(words)}"{attributes(**more)}>{defs}{"".join(parts)}</svg>'
    )


def hatches(key: str, names: Iterable[str]) -> str:
    """The patterns of these names; `key` keeps their ids apart from those of other pictures."""
    made = []
    for name in dict.fromkeys(names):
        side, path, line, ground = HATCHES[name]
        made.append(
            f'<pattern id="{key}-{name}" width="{side}" height="{side}" '
            f'patternUnits="userSpaceOnUse"><rect class="{ground}" width="{side}" '
            f'height="{side}"/><path class="{line}" d="{path}"/></pattern>'
        )
    return f"<defs>{''.join(made)}</defs>" if made else ""


def rect(x: float, y: float, w: float, h: float, kind: str, inner: str = "", **more: object) -> str:
    """A rectangle of a class; `inner` holds its tooltip, `more` further attributes."""
    box = f'x="{number(x)}" y="{number(y)}" width="{number(w)}" height="{number(h)}"'
    return f'<rect class="{kind}" {box}{attributes(**more)}' + (
        f">{inner}</rect>" if inner else "/>"
    )


def label(x: float, y: float, text: str, kind: str = "", *, at: str = "start") -> str:
    """Text whose baseline starts, ends, or has its middle at a point."""
    place = "" if at == "start" else f' text-anchor="{at}"'
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{number(x)}" y="{number(y)}"{named}{place}>{escaped(text)}</text>'


def path(d: str, kind: str, inner: str = "") -> str:
    """A path of a class."""
    return f'<path class="{kind}" d="{d}"' + (f">{inner}</path>" if inner else "/>")


def title(text: str) -> str:
    """A tooltip."""
    return f"<title>{escaped(text)}</title>"
