"""The grid: stages from top to bottom in time, the parts of the rack from left to right.

It shows which stacks are there in a stage, which train, which are frozen before and after them,
under which noise, and what each takes. The facts are those of `stagerows.py`, the shapes those of
`gridcells.py` and `gridfigures.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import stackwise as sw
from stackwise_widgets.views import svg
from stackwise_widgets.views.cells import STATES, Cell, State, columns_of
from stackwise_widgets.views.chosen import Gap
from stackwise_widgets.views.gridcells import cells_of, hatch_of
from stackwise_widgets.views.gridfigures import (
    column_lines,
    figures_of,
    heads,
    marks,
    most_of,
    name_of,
)
from stackwise_widgets.views.layout import TOP, WIDTH, Layout, layout_of
from stackwise_widgets.views.legend import SWATCH, legend_html
from stackwise_widgets.views.markup import attributes, count_said, escaped, flops_said, key_of
from stackwise_widgets.views.stagerows import (
    StageRow,
    cells_table,
    rows_of,
    stage_said,
    stages_table,
)
from stackwise_widgets.views.tables import behind

if TYPE_CHECKING:
    from stackwise import Experiment, Placement, Stage

GAP_ROW = 26.0
LABEL_WIDTH = 27.0  # of a stack's name over its column
SOURCES = {
    "streamed": "read from {} block by block as it is needed",
    "cached": "its outputs are read from a cache on disk, made once",
}


def grid_html(
    exp: Experiment,
    placement: Placement,
    stages: Sequence[Stage],
    rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    done: Mapping[int, str] | None = None,
) -> str:
    """The stages of an experiment against the stacks of its rack, as a picture with a table.

    Each stage is a `<g class="sw-stage" data-stage="3">`; in it each span of cells that are alike
    is a `<rect>` with `data-first`, `data-last` (columns: 0 is the embedding, 1 the first stack)
    and `data-state`. Of very many stages the first, one round of what repeats, and the last are
    shown, and what is left out is said.

    Args:
        exp: The experiment.
        placement: How it is carried out: whether frozen stacks are streamed or cached.
        stages: Its stages, complete, as `sw.stages` gives them.
        rows: What is predicted of each stage, as in `sw.plan(...).rows` and `run.plan()`; None to
            work it out here, empty for a picture without such figures.
        done: How a stage stands, in words (`finished`, `running`), by its number.

    Returns:
        A `<figure>`, well-formed as XML too.
    """
    plan = sw.plan_rows(exp, placement, stages) if rows is None else rows
    found = rows_of(exp, placement, stages, plan, done or {})
    seen = [row for row in found if isinstance(row, StageRow)]
    noisy = any(row.noise for row in seen)
    layout = layout_of(
        len(found), exp.rack.stacks, noise=noisy, planned=bool(plan), done=bool(done)
    )
    shown = [(row.number, row.done, row.stage.name, row.stage.tokens) for row in seen]
    key = key_of(exp.hash, placement, shown, layout)
    words = summary(exp, stages, plan)
    kinds = [kind for row in seen for span in row.spans if (kind := hatch_of(span.cell))]
    height = TOP + sum(_height(layout, row) for row in found) + 4
    body = _body(columns_of(exp), layout, found, key)
    drawn = svg.picture(WIDTH, height, words, body, defs=svg.hatches(key, kinds))
    dense = " sw-dense" if layout.detail == "lines" else ""
    tables = behind("The same as tables", stages_table(exp, found), cells_table(exp, found))
    return (
        f'<figure class="sw-view sw-grid{dense}"><figcaption>{escaped(words)}</figcaption>'
        f'<div class="sw-scroll">{drawn}</div>{_legend(placement, seen, key)}{tables}</figure>'
    )


def summary(exp: Experiment, stages: Sequence[Stage], plan: Sequence[Mapping[str, Any]]) -> str:
    """The grid in one line."""
    count, shape = len(stages), exp.rack
    tokens = sum(stage.tokens or 0 for stage in stages)
    blocks = f"{shape.blocks_per_stack} block{'s' * (shape.blocks_per_stack > 1)}"
    flops = f", {flops_said(sum(row['flops'] for row in plan))} FLOPs" if plan else ""
    return (
        f"{exp.curriculum.choice}: {count:,} stage{'s' * (count > 1)} × {shape.stacks} "
        f"stack{'s' * (shape.stacks > 1)} of {blocks}; {count_said(tokens)} tokens{flops}"
    )


def _height(layout: Layout, row: StageRow | Gap) -> float:
    return GAP_ROW if isinstance(row, Gap) else layout.row


def _body(
    names: Sequence[str], layout: Layout, rows: Sequence[StageRow | Gap], key: str
) -> Iterator[str]:
    """The heads, then every row below the last."""
    most = most_of([row for row in rows if isinstance(row, StageRow)], layout)
    yield from _names(names, layout)
    yield from heads(layout, most)
    y, tops = TOP, list[tuple[StageRow, float]]()
    for row in rows:
        if isinstance(row, Gap):
            yield svg.label(layout.left, y + 17, f"… {row.words}", "sw-faint")
        else:
            tops.append((row, y))
            named = name_of(layout, row, y) if layout.lines else ()
            inside = [*named, *cells_of(names, layout, row, y, key)]
            inside += [svg.title(stage_said(row)), *figures_of(layout, row, y, most)]
            facts = attributes(id=f"{key}-{row.number}", data_stage=row.number)
            yield f'<g class="sw-stage"{facts}>{"".join(inside)}</g>'
        y += _height(layout, row)
    yield from column_lines(layout, tops)
    yield from () if layout.lines else marks(layout, tops)


def _names(names: Sequence[str], layout: Layout) -> Iterator[str]:
    """Names over the columns; where stacks are narrow, over some of them."""
    narrow = layout.cell < LABEL_WIDTH
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    step = next(n for n in steps if n * layout.cell >= LABEL_WIDTH or n == steps[-1])
    yield svg.label(0, TOP - 9, "stage", "sw-faint")
    for column, name in enumerate(names):
        left, right = layout.x(column), layout.x(column + 1)
        if column in (0, len(names) - 1):
            text = "emb" if name == "embedding" and layout.end < 50 else name
            yield svg.label((left + right) / 2, TOP - 9, text, "sw-faint", at="middle")
        elif (column - 1) % step == 0 and layout.x(len(names) - 1) - left >= LABEL_WIDTH:
            at = ("start", left) if narrow else ("middle", (left + right) / 2)
            yield svg.label(at[1], TOP - 9, name, "sw-faint", at=at[0])


def _legend(placement: Placement, rows: Sequence[StageRow], key: str) -> str:
    """What the states that are shown look like, and what else there is to say of them."""
    cells = {span.cell._replace(bytes=None, flops=None) for row in rows for span in row.spans}
    cells = {cell._replace(start="") for cell in cells}
    place = "host memory" if placement.stream_from == "host" else "disk"
    entries = []
    kinds = sorted({_kind(cell) for cell in cells}, key=_in_order)
    for state, source, drawn in kinds:
        alike = [cell for cell in cells if _kind(cell) == (state, source, drawn)]
        kept = " or ".join(sorted({cell.kept for cell in alike if cell.kept}))
        what = f"{STATES[state][1]}, but only in steps that draw it" if drawn else STATES[state][1]
        words = [what, *([f"kept in {kept}"] if kept else [])]
        words += [SOURCES[source].format(place)] if source else []
        entries.append((_swatch(state, hatch_of(alike[0]), key), "; ".join(words)))
    if any(span.cell.start for row in rows for span in row.spans):
        corner = svg.rect(0, 0, *SWATCH, "sw-active") + svg.path("M0 0h9l-9 9z", "sw-new")
        entries.append((corner, "new in this stage"))
    if any(row.noise for row in rows):
        entries.append((svg.rect(0, 4, 20, 6, "sw-noise"), "part of the tokens that is masked"))
    return legend_html(entries)


def _kind(cell: Cell) -> tuple[State, str, bool]:
    """What of a cell the legend explains."""
    return cell.state, cell.source, cell.steps_frac < 1


def _in_order(kind: tuple[State, str, bool]) -> tuple[int, str, bool]:
    return list(STATES).index(kind[0]), *kind[1:]


def _swatch(state: State, hatch: str | None, key: str) -> str:
    w, h = SWATCH
    if state == "absent":
        return svg.rect(0.5, 0.5, w - 1, h - 1, "sw-absent sw-rule")
    fill = f"url(#{key}-{hatch})" if hatch else None
    box = svg.rect(0, 0, w, h, "" if fill else f"sw-{state}", fill=fill)
    return (
        box
        if hatch
        else box + svg.label(w / 2, h / 2 + 3.8, STATES[state][0], "sw-on", at="middle")
    )
