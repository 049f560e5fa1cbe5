"""The numbers of a step beside its picture: gradients and moves by block, losses, memory, words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from stackwise_widgets.views import svg
from stackwise_widgets.views.markup import ENDS, bytes_said, escaped, shortened
from stackwise_widgets.views.step import moved_said, norm_said
from stackwise_widgets.views.step_boxes import Box, boxes_of, gradient_of, moved_by
from stackwise_widgets.views.tables import behind, table_html

if TYPE_CHECKING:
    from stackwise import Experiment, Stage
    from stackwise.stepping import KeptTensor, Phase, Why

MANY = 18  # blocks of which each has a row of its own
MOST_STACKS = 32  # that train, the same
WIDE, ROW, NAME, HALF = 420.0, 18.0, 74.0, 170.0
POINTS = 300  # of the curve of losses
CURVE = (420.0, 96.0)
NOT_YET = "not yet"


def phases_html(phase: Phase | None, names: Sequence[str]) -> str:
    """The phases of a step in order, the present one marked."""
    at = -1 if phase is None else phase.number
    now, mark = ' aria-current="step"', {True: ' class="sw-past"', False: ""}
    items = "".join(
        f"<li{now if n == at else mark[n < at]}>{n + 1} {escaped(name)}</li>"
        for n, name in enumerate(names)
    )
    return f'<ol class="sw-phases" aria-label="phases of the step">{items}</ol>'


def bars_html(exp: Experiment, stage: Stage, phase: Phase | None) -> str:
    """Norm of the gradient of each block, and how far its weights moved.

    Returns:
        A `<figure>`, well-formed as XML too. Each bar is a `<rect>` with `data-block` and
        `data-value`; what is frozen has none, and says so.
    """
    rows = _rows(exp, stage)
    found = [(gradient_of(row, phase), moved_by(row, phase)) for row in rows]
    height = 22 + ROW * len(rows)
    body = [svg.label(NAME, 11, "gradient norm", "sw-faint")]
    body.append(svg.label(NAME + HALF + 6, 11, "weights moved, of their norm", "sw-faint"))
    mosts = [max((v for v in side if v), default=0.0) for side in zip(*found, strict=True)]
    for n, (row, values) in enumerate(zip(rows, found, strict=True)):
        body += _bars(row, values, mosts, 18 + n * ROW, phase)
    drawn = svg.picture(WIDE, height, "gradient and move of each block", body, small=True)
    lines = [[r.name, norm_said(g) or _none(r, phase), moved_said(m) or NOT_YET] for r, (g, m) in
             zip(rows, found, strict=True)]  # fmt: skip
    table = table_html(["block", "gradient norm", "weights moved"], lines, "By block")
    return (
        f'<figure class="sw-view sw-step-bars"><h4>Who gets a gradient, and who moves</h4>{drawn}'
        f"{behind('The same as a table', table)}</figure>"
    )


def _rows(exp: Experiment, stage: Stage) -> list[Box]:
    """A row for each block; of many blocks for each stack that trains, and each box of others."""
    boxes = [box for box in boxes_of(exp, stage) if box.of_rack]
    few = sum(len(box.blocks) for box in boxes) <= MANY
    one = exp.rack.blocks_per_stack == 1
    rows = []
    for box in boxes:
        if box.parts[0] in ENDS:
            rows.append(replace(box, name=box.parts[0]))
        elif few:
            named = [(name.partition(".")[0] if one else name, (name,)) for name in box.blocks]
            rows += [replace(box, name=name, blocks=blocks) for name, blocks in named]
        elif box.state == "active" and len(box.parts) <= MOST_STACKS:
            each = len(box.blocks) // len(box.parts)
            parts = enumerate(box.parts)
            rows += [replace(box, name=p, blocks=box.blocks[i * each :][:each]) for i, p in parts]
        else:
            rows.append(box)
    return rows


def _bars(
    row: Box,
    values: tuple[float | None, float | None],
    mosts: Sequence[float],
    y: float,
    phase: Phase | None,
) -> Iterator[str]:
    yield svg.label(0, y + 12, shortened(row.name, 11))
    kinds = ("sw-gradient-bar", "sw-moved-bar")
    for side, (value, most) in enumerate(zip(values, mosts, strict=True)):
        x, text = NAME + side * (HALF + 6), (norm_said, moved_said)[side](value)
        if value is None:
            text = _none(row, phase) if side == 0 else NOT_YET
        width = (HALF - 66) * value / most if value and most and math.isfinite(value) else 0.0
        if width:
            facts = {"data_block": row.name, "data_value": repr(value)}
            yield svg.rect(x, y + 3, max(width, 1), 11, kinds[side], **facts)
        yield svg.label(x + width + (4 if width else 0), y + 12.5, text, "sw-step-small")


def _none(row: Box, phase: Phase | None) -> str:
    """Why a block has no gradient to show."""
    if phase is None or not phase.grad_norms:
        return NOT_YET
    return "none" if row.state == "active" else "none: frozen"


def losses_html(losses: Sequence[tuple[int, float]], recorded: str = "") -> str:
    """The losses of the steps so far, as a curve with its last value.

    Args:
        losses: Number of each step, from 0, and its loss.
        recorded: What else is to be said of the last one.
    """
    if not losses:
        return _empty("Loss, step by step", "The loss of each step is drawn here once it is known.")
    thinned = [losses[i] for i in _spread(len(losses), POINTS)]
    low, high = min(v for _, v in thinned), max(v for _, v in thinned)
    first, last = thinned[0][0], thinned[-1][0]
    (wide, tall), span = CURVE, (high - low) or 1.0

    def at(step: int, value: float) -> str:
        x = 40 + (wide - 100) * (step - first) / max(1, last - first)
        return f"{svg.number(x)} {svg.number(10 + (tall - 26) * (high - value) / span)}"

    places = [at(*point) for point in thinned]
    x, y = map(float, places[-1].split())
    body = [svg.path("M" + "L".join(places), "sw-loss-line")]
    body.append(f'<circle class="sw-loss-dot" cx="{x:g}" cy="{y:g}" r="3.5"/>')
    body.append(svg.label(x + 8, y + 4, f"{losses[-1][1]:.4f}", "sw-strong"))
    if high > low:
        body += [svg.label(36, 14, f"{high:.2f}", "sw-faint", at="end")]
        body += [svg.label(36, tall - 13, f"{low:.2f}", "sw-faint", at="end")]
    body.append(svg.label(40, tall - 2, f"step {first + 1} to {last + 1}", "sw-faint"))
    drawn = svg.picture(wide, tall, f"loss of steps {first + 1} to {last + 1}", body, small=True)
    rows = [[step + 1, f"{value:.6f}"] for step, value in losses[-50:]]
    table = table_html(["step", "loss, nats a token"], rows, "The last 50 steps, at most")
    more = f'<p class="sw-note">{escaped(recorded)}</p>' if recorded else ""
    return (
        f'<figure class="sw-view sw-step-losses"><h4>Loss, step by step</h4>{drawn}{more}'
        f"{behind('The same as a table', table)}</figure>"
    )


def _empty(title: str, words: str) -> str:
    """The place of a picture that has nothing to show yet."""
    return f'<figure class="sw-view"><h4>{title}</h4><p class="sw-note">{words}</p></figure>'


def _spread(count: int, most: int) -> list[int]:
    """At most so many numbers below `count`, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def memory_html(phase: Phase | None) -> str:
    """Bytes by category after a phase, and what it keeps for backward, tensor by tensor."""
    if phase is None:
        said = "Bytes of weights, gradients, optimizer and activations as the step goes on."
        return _empty("Memory", said)
    most = max((size for size in phase.memory.values() if size), default=1)
    body = []
    for n, (name, size) in enumerate(phase.memory.items()):
        y, width = n * ROW, 0.0 if size is None else 200 * size / most
        body.append(svg.label(0, y + 12, name))
        if width:
            box = (NAME, y + 3, max(width, 0.5), 11)
            body.append(svg.rect(*box, "sw-memory-bar", data_category=name, data_bytes=size))
        text = "not seen" if size is None else bytes_said(size)
        body.append(svg.label(NAME + width + 4, y + 12.5, text, "sw-step-small"))
    height = ROW * len(phase.memory) + 4
    drawn = svg.picture(WIDE, height, "memory by category", body, small=True)
    return (
        f'<figure class="sw-view sw-step-memory"><h4>Memory after this phase</h4>{drawn}'
        f"{_kept(phase)}</figure>"
    )


def _kept(phase: Phase) -> str:
    if phase.kept is None:
        return '<p class="sw-note">What is recomputed in backward cannot be seen from outside.</p>'
    size = phase.kept_bytes or 0
    if phase.name in ("trunk", "embedding", "active", "suffix", "loss") and not size:
        return '<p class="sw-note">This phase keeps nothing for backward.</p>'
    if not size:
        return ""
    rows = [_tensor(each) for each in phase.kept]
    head = ["shape", "dtype", "how many", "bytes"]
    table = table_html(head, rows, "What autograd keeps of this phase until backward")
    return behind(f"This phase keeps {bytes_said(size)} for backward", table)


def _tensor(each: KeptTensor) -> list[str]:
    shape = " × ".join(map(str, each.shape)) or "a number"
    return [shape, each.dtype, str(each.count), bytes_said(each.bytes)]


def why_html(reasons: Iterable[Why]) -> str:
    """Questions that a stage raises, with their answers."""
    made = "".join(
        f'<div class="sw-why" data-about="{escaped(why.about)}"><h4>{escaped(why.question)}</h4>'
        f"<p>{escaped(why.answer)}</p></div>"
        for why in reasons
    )
    return f'<div class="sw-view">{made}</div>'
