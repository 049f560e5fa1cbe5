"""One training step as a picture: tokens on top, loss at the bottom, the gradient on its way up.

Forward runs down through the boxes. The gradient's line runs up beside it as far as gradient goes,
and ends in a bar; it turns into the weights of what trains, and passes by those of what is frozen.
The boxes are those of `step_boxes.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from stackwise_widgets.views import svg
from stackwise_widgets.views.legend import SWATCH, legend_html
from stackwise_widgets.views.markup import escaped, key_of, said, shortened
from stackwise_widgets.views.step_boxes import (
    STATES,
    Box,
    arriving_at,
    boxes_of,
    gradient_of,
    is_crossed,
    moved_by,
    output_of,
)
from stackwise_widgets.views.tables import behind, table_html

if TYPE_CHECKING:
    from stackwise import Experiment, Stage
    from stackwise.stepping import Phase

WIDTH, LEFT, BOX = 372.0, 18.0, 262.0
TALL, GAP, THIN = 42.0, 18.0, 20.0
DOWN, LANE, WEIGHTS = 46.0, 252.0, 196.0  # where forward, gradient and weights are drawn
TOP = 8.0
HATCHED = {"trunk": "trunk", "suffix": "suffix", "passed": "suffix"}


def step_html(exp: Experiment, stage: Stage, phase: Phase | None = None) -> str:
    """A stage's step as a picture with a table, as far as a phase has brought it.

    Args:
        exp: The experiment.
        stage: The stage.
        phase: The present phase; None before the first.

    Returns:
        A `<figure>`, well-formed as XML too. Each box is a `<g data-box="s1" data-state="active">`,
        with `data-present` where the phase is at work; each arrow of gradient is a
        `<path class="sw-flow">` with `data-to`, the name of the box that it reaches.
    """
    boxes = boxes_of(exp, stage)
    tops = list(_tops(boxes))
    key = key_of(exp.hash, stage.name, stage.path, phase and (phase.step, phase.name))
    present = _present(phase)
    body = [*_forward(boxes, tops, phase)]
    for box, top in zip(boxes, tops, strict=True):
        body.append(_box(box, top, phase, key, at_work=bool(present & set(box.parts))))
    body += _backward(boxes, tops, phase)
    words = _words(stage, phase)
    hatched = [HATCHED[box.state] for box in boxes if box.state in HATCHED]
    height = tops[-1] + TALL + 8
    drawn = svg.picture(WIDTH, height, words, body, defs=svg.hatches(key, hatched), small=True)
    return (
        f'<figure class="sw-view sw-step">{drawn}{_legend(boxes, key)}'
        f"{behind('The same as a table', _table(boxes, phase))}</figure>"
    )


def norm_said(value: float | None) -> str:
    """A norm with three digits: `0.0382`, `1.23e-05`; empty where there is none."""
    if value is None:
        return ""
    return f"{value:.3g}"


def moved_said(value: float | None) -> str:
    """How far weights moved, of their norm, with two digits: `0.048 %`; empty where not known."""
    if value is None:
        return ""
    if not value:
        return "exactly 0"
    digits = ".2g" if abs(value) < 0.995 else ".0f"
    return said(value, lambda part: f"{100 * part:{digits}} %")


def _present(phase: Phase | None) -> set[str]:
    """The parts that a phase is at work in."""
    if phase is None:
        return set()
    if phase.name in ("batch", "mask"):
        return {phase.name}
    return {*phase.parts, *(["loss"] if phase.name == "loss" else [])}


def _tops(boxes: Sequence[Box]) -> Iterator[float]:
    y = TOP
    for box in boxes:
        yield y
        y += (THIN if box.state == "absent" else TALL) + GAP


def _tall(box: Box) -> float:
    return THIN if box.state == "absent" else TALL


def _box(box: Box, top: float, phase: Phase | None, key: str, *, at_work: bool) -> str:
    """One box: name and state, its numbers, its weights, and a mark if the phase is here."""
    if box.state == "absent":
        text = svg.label(
            LEFT + 56, top + 14, f"{shortened(box.name, 18)}: {STATES['absent']}", "sw-faint"
        )
        return f'<g data-box="{escaped(box.name)}" data-state="absent">{text}</g>'
    on = " sw-on" if box.state == "active" else ""
    made = svg.rect(LEFT, top, BOX, TALL, f"sw-step-box sw-step-{box.state}", rx=4)
    if box.state in HATCHED:
        fill = f"url(#{key}-{HATCHED[box.state]})"
        made += svg.rect(LEFT + 1, top + 1, 9, TALL - 2, "sw-mark", fill=fill)
    made += svg.label(LEFT + 56, top + 17, shortened(box.name, 17), f"sw-strong{on}")
    made += svg.label(LEFT + 56, top + 33, _second(box, phase), f"sw-step-small{on}")
    if box.of_rack:
        made += _weights(box, top)
    if at_work:
        made += svg.rect(LEFT - 2, top - 2, BOX + 4, TALL + 4, "sw-step-now", rx=6)
        made += svg.path(f"M2 {top + TALL / 2 - 7}l11 7l-11 7z", "sw-step-here")
    now = ' data-present="yes"' if at_work else ""
    tip = svg.title(_tip(box, phase))
    return f'<g data-box="{escaped(box.name)}" data-state="{box.state}"{now}>{made}{tip}</g>'


def _second(box: Box, phase: Phase | None) -> str:
    """The line of numbers in a box, as far as they are known."""
    if box.parts == ("batch",):
        return "" if phase is None else _shape(phase)
    if box.parts == ("mask",):
        shown = phase is not None and phase.number >= 1
        return f"{phase.counted:,} positions count" if shown and phase is not None else ""
    if box.parts == ("loss",):
        known = phase is not None and phase.loss is not None
        return f"{phase.loss:.4f} nats a token" if known and phase is not None else ""
    output, moved = output_of(box, phase), moved_by(box, phase)
    if moved is not None:
        return f"moved by {moved_said(moved)}"
    return f"puts out {norm_said(output)} rms" if output is not None else STATES[box.state]


def _shape(phase: Phase) -> str:
    count, length = phase.tokens.ids_BT.shape
    return f"{count} samples × {length}"


def _weights(box: Box, top: float) -> str:
    """A small box for the weights of a part."""
    kind = "sw-step-w-active" if box.state == "active" else "sw-step-w"
    made = svg.rect(WEIGHTS - 1, top + 7, 20, 17, kind, rx=3)
    return made + svg.label(WEIGHTS + 9, top + 19.5, "W", "sw-step-small", at="middle")


def _forward(boxes: Sequence[Box], tops: Sequence[float], phase: Phase | None) -> Iterator[str]:
    """Arrows from box to box, strong where this step has come."""
    reached = _reached(boxes, phase)
    there = [n for n, box in enumerate(boxes) if box.state != "absent"]
    for one, other in pairwise(there):
        y, end = tops[one] + _tall(boxes[one]), tops[other]
        kind = "sw-step-forward" if other <= reached else "sw-step-waits"
        yield svg.path(f"M{DOWN} {y}V{end - 5}", kind)
        yield svg.path(f"M{DOWN - 4} {end - 7}l4 6l4 -6z", f"{kind}-tip")


def _reached(boxes: Sequence[Box], phase: Phase | None) -> int:
    """The last box that forward has come to."""
    if phase is None:
        return 0
    if phase.loss is not None:
        return len(boxes) - 1
    known = [n for n, box in enumerate(boxes) if output_of(box, phase) is not None]
    return max([*known, min(phase.number, 1)])


def _backward(boxes: Sequence[Box], tops: Sequence[float], phase: Phase | None) -> Iterator[str]:
    """The gradient's way up from the loss, its branches into weights, and where it ends."""
    more = "" if phase is not None and phase.flow else " sw-flow-to-come"
    crossed = [n for n, box in enumerate(boxes) if is_crossed(box)]
    begin = tops[-1] + 12
    said = "" if not crossed else "norms of the gradient" if not more else "way of the gradient"
    for n, words in enumerate(said.rpartition(" of ")[::2]):
        prefix = "of " if n else ""
        yield svg.label(LANE + 34, tops[-1] + 20 + 11 * n, f"{prefix}{words}", "sw-faint")
    for n in reversed(crossed):
        box, top, end = boxes[n], tops[n], tops[n] + TALL
        way, to = f"M{LANE} {begin}V{end + 6}", escaped(box.name)
        yield f'<path class="sw-flow{more}" data-to="{to}" d="{way}"/>'
        yield svg.path(f"M{LANE - 4} {end + 7}l4 -7l4 7z", f"sw-flow-tip{more}")
        last = n == crossed[0]
        way = f"M{LANE} {end}V{top + 15.5 if last and box.state == 'active' else top}"
        if box.state == "active":
            way += f"M{LANE} {top + 15.5}H{WEIGHTS + 25}"
            yield svg.path(f"M{WEIGHTS + 26} {top + 11.5}l-7 4l7 4z", f"sw-flow-tip{more}")
            norm = norm_said(gradient_of(box, phase))
            yield svg.label(WEIGHTS + 21, top + 36, norm, "sw-step-small sw-on", at="middle")
        yield svg.path(way, f"sw-flow-line{more}")
        yield svg.label(LANE + 34, end + 13, norm_said(arriving_at(box, phase)), "sw-step-small")
        begin = top
    yield from _stop(boxes, tops, crossed)


def _stop(boxes: Sequence[Box], tops: Sequence[float], crossed: Sequence[int]) -> Iterator[str]:
    """A bar where frozen parts begin that no gradient reaches."""
    frozen = [n for n, box in enumerate(boxes) if box.state == "trunk"]
    if not frozen or not crossed:
        return
    y = tops[max(frozen)] + TALL + 4
    yield svg.path(f"M{LANE - 16} {y}h32", "sw-flow-end")
    yield svg.label(LANE + 34, y - 18, "no gradient", "sw-faint")
    yield svg.label(LANE + 34, y - 7, "from here up", "sw-faint")


def _words(stage: Stage, phase: Phase | None) -> str:
    path = ", ".join(stage.path)
    if phase is None:
        return f"A training step of stage {stage.name}: path {path}"
    return f"Phase {phase.number + 1} of {len(phase.names)}, {phase.name}: {phase.words}"


def _tip(box: Box, phase: Phase | None) -> str:
    lines = [f"{box.name}{': ' if STATES[box.state] else ''}{STATES[box.state]}"]
    for words, found in (
        ("puts out, root mean square", norm_said(output_of(box, phase))),
        ("gradient that arrives, norm", norm_said(arriving_at(box, phase))),
        ("gradient of its weights, norm", norm_said(gradient_of(box, phase))),
        ("weights moved by, of their norm", moved_said(moved_by(box, phase))),
    ):
        lines += [f"{words}: {found}"] if found else []
    return "\n".join(lines)


def _legend(boxes: Sequence[Box], key: str) -> str:
    """What the marks mean, as far as they are there."""
    w, h = SWATCH
    states = {box.state for box in boxes}
    entries = [(svg.path("M10 0V9M6 7l4 6l4 -6z", "sw-step-forward"), "forward")]
    entries.append((svg.path("M10 14V5M6 7l4 -6l4 6z", "sw-flow-line"), "gradient, with its norm"))
    entries.append(
        (svg.rect(0, 0, w, h, "sw-step-active", rx=2), "trains: gradient reaches its weights, W")
    )
    if states & {"suffix", "passed"}:
        inside = svg.rect(0, 0, w, h, "sw-step-suffix", rx=2)
        inside += svg.rect(1, 1, 9, h - 2, "", fill=f"url(#{key}-suffix)")
        entries.append((inside, "frozen: gradient crosses it and passes its weights by"))
    if "trunk" in states:
        inside = svg.rect(0, 0, w, h, "sw-step-trunk", rx=2)
        inside += svg.rect(1, 1, 9, h - 2, "", fill=f"url(#{key}-trunk)")
        entries.append((inside, "frozen: no gradient comes"))
    return legend_html(entries)


def _table(boxes: Sequence[Box], phase: Phase | None) -> str:
    head = ["part", "state", "puts out, rms", "gradient arriving", "of its weights", "moved by"]
    rows = [
        [
            box.name,
            STATES[box.state] or "-",
            norm_said(output_of(box, phase)) or "-",
            norm_said(arriving_at(box, phase)) or "-",
            norm_said(gradient_of(box, phase)) or "-",
            moved_said(moved_by(box, phase)) or "-",
        ]
        for box in boxes
    ]
    return table_html(head, rows, "The step so far: norms; weights moved, of their own norm")
