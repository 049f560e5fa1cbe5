"""Curves over one axis as an SVG picture: dashes, marks and bands, each point with its words.

For finished numbers: a few kilobytes, no chart library, colours of the page's own theme. What
moves, or is zoomed, is drawn by `charts/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matplotlib.ticker import EngFormatter, MaxNLocator

from stackwise_widgets.curve_looks import place_of
from stackwise_widgets.views import svg
from stackwise_widgets.views.legend import SWATCH, legend_html
from stackwise_widgets.views.markup import attributes, escaped, key_of
from stackwise_widgets.views.style import PALETTE

WIDTH, HEIGHT = 760.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 14.0, 12.0, 46.0
LINES = tuple(
    PALETTE[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky", "grey")
)
DASHES = ("", "7 4", "2 3", "8 3 2 3", "12 4", "12 3 3 3")
FILLED = ("circle", "square", "up", "diamond", "down", "plus", "cross")


@dataclass(frozen=True)
class Point:
    """A point; a NaN is a gap. It has a mark if it has words, or is strong."""

    x: float
    y: float
    words: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        label: In the legend, and its `data-line`.
        points: From left to right.
        band: (x, low, high) around it; a NaN is a gap.
        last: Points by themselves, with large marks.
        spread: (x from, x to, y): how far such a point reaches to the sides.
        number: Its style; None for its place among the lines.
    """

    label: str
    points: Sequence[Point] = ()
    band: Sequence[tuple[float, float, float]] = ()
    last: Sequence[Point] = ()
    spread: Sequence[tuple[float, float, float]] = ()
    number: int | None = None


@dataclass(frozen=True)
class Axes:
    """What stands along both axes.

    Attributes:
        x, y: Their titles.
        limits: Of y; None for all that there is.
        names: Words for whole numbers along x, instead of numbers.
        aside: Title of a strip at the right where the `last` points stand side by side, so that
            those that fall together along x can be told apart; empty: they stand at their own x.
    """

    x: str
    y: str
    limits: tuple[float, float] | None = None
    names: Sequence[str] = field(default=())
    aside: str = ""


def lines_svg(lines: Sequence[Line], axes: Axes, words: str, height: float = HEIGHT) -> str:
    """Curves as a picture.

    Args:
        lines: In the order in which they are drawn.
        axes: Titles and limits.
        words: What it shows, for those who listen.
        height: In the units of `WIDTH`.

    Returns:
        An `<svg>`, well-formed as XML too; each curve is a `<g data-line="its label">`.
    """
    frame = _Frame.of(lines, axes, height)
    key = key_of(words, lines, axes)
    body = [*_grid(frame, axes), f'<g clip-path="url(#{key}-in)">']
    body += [_curve(line, _style(line, at), frame) for at, line in enumerate(lines)]
    body.append("</g>")
    # After the curves, and not cut at the frame's edge.
    shown = [at for at, line in enumerate(lines) if line.last]
    body += [
        _last(lines[at], _style(lines[at], at), frame, (place + 0.5) / len(shown))
        for place, at in enumerate(shown)
    ]
    inside = svg.rect(LEFT, TOP, frame.width, frame.tall, "sw-hit")
    defs = f'<defs><clipPath id="{key}-in">{inside}</clipPath></defs>'
    return svg.picture(WIDTH, height, words, body, defs=defs)


def lines_legend(lines: Sequence[Line], words: Sequence[str] | None = None) -> str:
    """What each curve looks like; `words` instead of the labels."""
    entries = []
    w, h = SWATCH
    for at, line in enumerate(lines):
        number = _style(line, at)
        drawn = _path(f"M0 {h / 2}H{w}", number, 1.8) + _mark(w / 2, h / 2, 3.4, number)
        entries.append((drawn, words[at] if words else line.label))
    return legend_html(entries)


def _style(line: Line, place: int) -> int:
    return place if line.number is None else line.number


@dataclass(frozen=True)
class _Frame:
    """Where numbers stand in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    height: float
    strip: float = 0.0

    @property
    def width(self) -> float:
        return WIDTH - LEFT - RIGHT - self.strip

    @property
    def tall(self) -> float:
        return self.height - TOP - BOTTOM

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - self.x[0]) / (self.x[1] - self.x[0]) * self.width,
            TOP + (self.y[1] - y) / (self.y[1] - self.y[0]) * self.tall,
        )

    @classmethod
    def of(cls, lines: Sequence[Line], axes: Axes, height: float) -> _Frame:
        """All that there is, with some room; from 0 on where that is near."""
        many = sum(bool(line.last) for line in lines)
        strip = min(190.0, max(76.0, 18.0 * many + 20)) if axes.aside else 0.0
        xs = [p.x for line in lines for p in (*line.points, *(() if strip else line.last))]
        xs += [end for line in lines for *ends, _ in line.spread for end in ends]
        ys = [p.y for line in lines for p in (*line.points, *line.last)]
        ys += [end for line in lines for _, *ends in line.band for end in ends]
        low, high = _span(xs)
        x = (-0.3, len(axes.names) - 0.7) if axes.names else (min(0.0, low), high)
        if not axes.names:
            x = (x[0], x[1] + 0.02 * (x[1] - x[0]))
        if axes.limits is not None:
            return cls(x, axes.limits, height, strip)
        low, high = _span(ys)
        room = 0.06 * (high - low)
        return cls(x, (low - room, high + room), height, strip)


def _span(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5 * abs(low) - 0.5, high + 0.5 * abs(high) + 0.5)


def _grid(frame: _Frame, axes: Axes) -> Iterator[str]:
    """Grid lines, numbers beside them, and titles."""
    bottom, right = TOP + frame.tall, LEFT + frame.width
    for value in _ticks(frame.y, 6):
        _, y = frame.at(0, value)
        over = f"M{svg.number(right + 12)} {svg.number(y)}H{WIDTH - RIGHT}" if frame.strip else ""
        yield svg.path(f"M{LEFT} {svg.number(y)}H{svg.number(right)}{over}", "sw-thin")
        yield svg.label(LEFT - 6, y + 3.5, f"{value:.6g}", "sw-faint", at="end")
    yield from _names(frame, axes) if axes.names else _numbers(frame)
    yield svg.path(f"M{LEFT} {svg.number(bottom)}H{svg.number(right)}", "sw-rule")
    yield svg.label(LEFT + frame.width / 2, frame.height - 8, axes.x, at="middle")
    if frame.strip:
        yield svg.path(f"M{svg.number(right + 12)} {svg.number(bottom)}H{WIDTH - RIGHT}", "sw-rule")
        middle = (right + 12 + WIDTH - RIGHT) / 2
        yield svg.label(middle, frame.height - 8, axes.aside, at="middle")
    middle = svg.number(TOP + frame.tall / 2)
    yield (
        f'<text x="13" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 13 {middle})">{escaped(axes.y)}</text>'
    )


def _numbers(frame: _Frame) -> Iterator[str]:
    units = EngFormatter(sep=" ", places=None)
    for value in _ticks(frame.x, 7):
        x, _ = frame.at(value, 0)
        yield svg.path(f"M{svg.number(x)} {TOP}v{svg.number(frame.tall)}", "sw-thin")
        yield svg.label(x, TOP + frame.tall + 15, units(value).strip(), "sw-faint", at="middle")


def _names(frame: _Frame, axes: Axes) -> Iterator[str]:
    room = frame.width / max(1, len(axes.names)) / (7 * max(map(len, axes.names)))
    step = max(1, math.ceil(1 / room)) if room else 1
    for place in range(0, len(axes.names), step):
        x, _ = frame.at(place, 0)
        yield svg.path(f"M{svg.number(x)} {TOP}v{svg.number(frame.tall)}", "sw-thin")
        yield svg.label(x, TOP + frame.tall + 15, axes.names[place], "sw-faint", at="middle")


def _ticks(span: tuple[float, float], most: int) -> list[float]:
    found = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(*span)
    return [0.0 if abs(v) < 1e-12 * (span[1] - span[0]) else float(v)
            for v in found if span[0] <= v <= span[1]]  # fmt: skip


def _curve(line: Line, number: int, frame: _Frame) -> str:
    """Band, curve and its marks."""
    colour = LINES[place_of(number)[0]]
    parts = [
        f'<path d="{shape}" fill="{colour}" fill-opacity="0.2"/>'
        for shape in _bands(line.band, frame)
    ]
    parts.append(_path(_drawn(line.points, frame), number, 1.8))
    for point in line.points:
        if (point.words or point.strong) and math.isfinite(point.x) and math.isfinite(point.y):
            size = 4.6 if point.strong else 2.8
            parts.append(_mark(*frame.at(point.x, point.y), size, number, point.words))
    return f"<g{attributes(data_line=line.label)}>{''.join(parts)}</g>"


def _last(line: Line, number: int, frame: _Frame, share: float) -> str:
    """Points by themselves, large, and how far they reach to the sides."""
    parts = []
    for begin, end, y in line.spread:
        (left, at), (right, _) = frame.at(begin, y), frame.at(end, y)
        parts.append(_path(f"M{svg.number(left)} {svg.number(at)}H{svg.number(right)}", number, 1))
    for point in line.last:
        if math.isfinite(point.x) and math.isfinite(point.y):
            x, y = frame.at(point.x, point.y)
            if frame.strip:
                x = LEFT + frame.width + 12 + share * (frame.strip - 12)
            parts.append(_mark(x, y, 6.0, number, point.words))
    return f"<g{attributes(data_last=line.label)}>{''.join(parts)}</g>" if parts else ""


def _drawn(points: Sequence[Point], frame: _Frame) -> str:
    out, pen = [], "M"
    for point in points:
        if not (math.isfinite(point.x) and math.isfinite(point.y)):
            pen = "M"
            continue
        x, y = frame.at(point.x, point.y)
        out.append(f"{pen}{svg.number(x)} {svg.number(y)}")
        pen = "L"
    return "".join(out)


def _bands(band: Sequence[tuple[float, float, float]], frame: _Frame) -> Iterator[str]:
    """A closed shape for each stretch without a gap."""
    stretch: list[tuple[float, float, float]] = []
    for piece in [*band, (math.nan,) * 3]:
        if all(map(math.isfinite, piece)):
            stretch.append(piece)
            continue
        if len(stretch) > 1:
            over = [frame.at(x, high) for x, _, high in stretch]
            under = [frame.at(x, low) for x, low, _ in reversed(stretch)]
            corners = (f"{svg.number(x)} {svg.number(y)}" for x, y in (*over, *under))
            yield f"M{'L'.join(corners)}Z"
        stretch = []


def _path(d: str, number: int, width: float) -> str:
    if not d:
        return ""
    which, _, turn = place_of(number)
    colour, dash = LINES[which], DASHES[turn]
    return (
        f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{width}"'
        f'{attributes(stroke_dasharray=dash or None)} stroke-linejoin="round"/>'
    )


def _mark(x: float, y: float, size: float, number: int, words: str = "") -> str:
    """A mark of the line's own shape around a point."""
    which, mark, _ = place_of(number)
    colour, shape = LINES[which], FILLED[mark]
    n, r = svg.number, size
    corners = {
        "circle": f"M{n(x - r)} {n(y)}a{n(r)} {n(r)} 0 1 0 {n(2 * r)} 0a{n(r)} {n(r)} 0 1 0 "
        f"{n(-2 * r)} 0Z",
        "square": f"M{n(x - r)} {n(y - r)}h{n(2 * r)}v{n(2 * r)}h{n(-2 * r)}Z",
        "up": f"M{n(x)} {n(y - r)}L{n(x + r)} {n(y + r)}H{n(x - r)}Z",
        "down": f"M{n(x)} {n(y + r)}L{n(x + r)} {n(y - r)}H{n(x - r)}Z",
        "diamond": f"M{n(x)} {n(y - r)}L{n(x + r)} {n(y)}L{n(x)} {n(y + r)}L{n(x - r)} {n(y)}Z",
        "plus": f"M{n(x - r)} {n(y)}h{n(2 * r)}M{n(x)} {n(y - r)}v{n(2 * r)}",
        "cross": f"M{n(x - r)} {n(y - r)}l{n(2 * r)} {n(2 * r)}m0 {n(-2 * r)}l{n(-2 * r)} "
        f"{n(2 * r)}",
    }[shape]
    open_ = shape in ("plus", "cross")
    tip = svg.title(words) if words else ""
    paint = f'fill="none" stroke="{colour}" stroke-width="2"' if open_ else f'fill="{colour}"'
    return f'<path class="sw-point" d="{corners}" {paint}>{tip}</path>'
