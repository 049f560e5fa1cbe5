"""The stages of a grid as rows of facts, and the same facts as the tables behind the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise_widgets.views.cells import STATES, Cell, Span, columns_of, held_before, spans_of
from stackwise_widgets.views.chosen import Gap, chosen
from stackwise_widgets.views.markup import (
    bytes_said,
    count_said,
    flops_said,
    percent_said,
    stacks_said,
)
from stackwise_widgets.views.noise import Noise, noise_of
from stackwise_widgets.views.tables import table_html

if TYPE_CHECKING:
    from stackwise import Experiment, Placement, Stage

STAGE_HEAD = (
    "stage",
    "name",
    "state",
    "path",
    "new",
    "trains",
    "trunk",
    "suffix",
    "adapter",
    "masked",
)
FIGURE_HEAD = ("tokens", "steps", "FLOPs", "peak memory", "at")
CELL_HEAD = ("stage", "parts", "state", "starts from", "kept in", "read from", "tokens")
CELL_FIGURES = ("bytes each", "FLOPs each")


@dataclass(frozen=True)
class StageRow:
    """One stage of the grid.

    Attributes:
        number: Which one.
        stage: What it is.
        spans: Its cells, left to right.
        noise: The masked fractions of its samples; None where nothing is masked.
        done: How it stands, in words; empty where it has not begun.
        steps: Optimizer steps.
        plan: What was predicted of it; None without a plan.
    """

    number: int
    stage: Stage
    spans: list[Span]
    noise: Noise | None
    done: str
    steps: int
    plan: Mapping[str, Any] | None

    @property
    def flops(self) -> float | None:
        """FLOPs of the stage."""
        return None if self.plan is None else self.plan["flops"]

    @property
    def peak_bytes(self) -> int | None:
        """Bytes on the device at its highest moment."""
        return None if self.plan is None else self.plan.get("peak_bytes")

    def in_state(self, *states: str) -> list[int]:
        """The columns whose part is in one of these states."""
        return [c for span in self.spans if span.cell.state in states for c in span.columns]


def rows_of(
    exp: Experiment,
    placement: Placement,
    stages: Sequence[Stage],
    plan: Sequence[Mapping[str, Any]],
    done: Mapping[int, str],
) -> list[StageRow | Gap]:
    """A row for each stage that is shown, and what lies between them."""
    shown, found = chosen(stages), dict[int, StageRow]()
    wanted = {number for number in shown if isinstance(number, int)}
    for number, (stage, held) in enumerate(zip(stages, held_before(stages), strict=True)):
        if number in wanted:
            row = plan[number] if number < len(plan) else None
            found[number] = StageRow(
                number,
                stage,
                spans_of(exp, placement, stage, held, row),
                noise_of(exp, stage),
                done.get(number, ""),
                (stage.tokens or 0) // (exp.optim.batch * (stage.seq_len or exp.data.seq_len)),
                row,
            )
    return [found[entry] if isinstance(entry, int) else entry for entry in shown]


def stages_table(exp: Experiment, rows: Sequence[StageRow | Gap]) -> str:
    """One line per stage that is shown."""
    names = columns_of(exp)
    lines = [_stage_line(names, row) for row in rows if isinstance(row, StageRow)]
    left = [f"{row.words}" for row in rows if isinstance(row, Gap)]
    caption = "; ".join(["The stages, in the order in which they run", *left])
    return table_html([*STAGE_HEAD, *FIGURE_HEAD], lines, caption)


def _stage_line(names: Sequence[str], row: StageRow) -> list[object]:
    def parts(*states: str) -> str:
        return stacks_said([names[column] for column in row.in_state(*states)], names)

    plan = row.plan or {}
    return [
        row.number,
        row.stage.name,
        row.done or "not begun",
        path_said(names, row),
        starts_said(names, row),
        parts("active"),
        parts("trunk"),
        parts("suffix"),
        adapters_said(names, row),
        row.noise.words if row.noise else "nothing",
        count_said(row.stage.tokens),
        f"{row.steps:,}",
        flops_said(row.flops),
        bytes_said(row.peak_bytes),
        plan.get("peak_at"),
    ]


def path_said(names: Sequence[str], row: StageRow) -> str:
    """The stacks that a stage runs, and how many of them a step draws."""
    path, pick = row.stage.path, row.stage.pick
    drawn = f", {pick} in each step" if pick is not None and pick < len(path) else ""
    return f"{stacks_said(path, names)}{drawn}"


def adapters_said(names: Sequence[str], row: StageRow) -> str:
    """The stacks that carry an adapter, by its rank."""
    found: dict[int, list[str]] = {}
    for adapter in row.stage.adapters or ():
        found.setdefault(adapter.rank, []).append(adapter.stack)
    return "; ".join(f"{stacks_said(s, names)}: rank {n}" for n, s in found.items()) or "none"


def starts_said(names: Sequence[str], row: StageRow) -> str:
    """The stacks that a stage adds, and what they start from."""
    found: dict[str, list[str]] = {}
    for span in row.spans:
        if span.cell.start:
            found.setdefault(span.cell.start, []).extend(names[c] for c in span.columns)
    return "; ".join(f"{stacks_said(s, names)}: {start}" for start, s in found.items()) or "none"


def cells_table(exp: Experiment, rows: Sequence[StageRow | Gap]) -> str:
    """One line per span of cells that are alike; parts that are not there yet are left out."""
    names = columns_of(exp)
    lines = [
        _cell_line(names, row, span)
        for row in rows
        if isinstance(row, StageRow)
        for span in row.spans
        if span.cell.state != "absent"
    ]
    return table_html(
        [*CELL_HEAD, *CELL_FIGURES], lines, "Each part in each stage; those alike are one line"
    )


def _cell_line(names: Sequence[str], row: StageRow, span: Span) -> list[object]:
    cell = span.cell
    return [
        row.number,
        stacks_said([names[column] for column in span.columns], names),
        cell.state,
        cell.start or "-",
        cell.kept or "-",
        cell.source or "memory",
        count_said(row.stage.tokens),
        bytes_said(total_of(cell)),
        flops_said(cell.flops),
    ]


def total_of(cell: Cell) -> int | None:
    """Bytes of one part, all categories."""
    return None if cell.bytes is None else sum(count for _, count in cell.bytes)


def cell_said(names: Sequence[str], row: StageRow, span: Span) -> str:
    """What a cell's tooltip says, a line each: what it is, what of it is new, what it takes."""
    cell, many = span.cell, len(span.columns)
    parts = stacks_said([names[column] for column in span.columns], names)
    lines = [f"stage {row.number} ({row.stage.name}) · {parts}", STATES[cell.state][1]]
    if cell.start:
        lines.append(f"new in this stage, starts from: {cell.start.removeprefix('from ')}")
    if cell.steps_frac < 1:
        lines.append(f"runs in {percent_said(cell.steps_frac)} of the steps, drawn for each")
    if cell.rank:
        lines.append(f"carries an adapter of rank {cell.rank}")
    if cell.kept:
        lines.append(f"kept in {cell.kept}" + (f", {cell.source}" if cell.source else ""))
    if cell.state == "absent":
        return "\n".join(lines)
    lines.append(f"reads {count_said(row.stage.tokens)} tokens in {row.steps:,} steps")
    if cell.bytes is not None:
        each = "each " if many > 1 else ""
        kinds = ", ".join(f"{kind} {bytes_said(count)}" for kind, count in cell.bytes if count)
        whole = bytes_said(total_of(cell))
        lines.append(f"{each}{whole}{f' ({kinds})' if kinds else ''}")
        lines.append(f"{each}{flops_said(cell.flops)} FLOPs")
    return "\n".join(lines)


def stage_said(row: StageRow) -> str:
    """What a stage's tooltip says: how it stands, its noise, what it takes."""
    lines = [f"stage {row.number}: {row.stage.name}{f', {row.done}' if row.done else ''}"]
    pick, path, length = row.stage.pick, row.stage.path, row.stage.seq_len
    if not path:
        lines.append("embedding and head alone")
    if pick is not None and pick < len(path):
        lines.append(f"each step draws {pick} of {len(path)} stacks, and runs these alone")
    if length is not None:
        lines.append(f"samples of {length:,} tokens")
    if row.stage.block is not None:
        lines.append(f"blocks of {row.stage.block:,} tokens")
    if row.stage.weights is not None:
        lines.append(f"corpora mixed {' : '.join(f'{w:g}' for w in row.stage.weights)}")
    if row.noise is not None:
        lines.append(f"{row.noise.words} of the tokens are masked")
    lines.append(f"{count_said(row.stage.tokens)} tokens in {row.steps:,} steps")
    if row.plan is not None:
        lines.append(f"{flops_said(row.flops)} FLOPs")
        lines.append(f"{bytes_said(row.peak_bytes)} at its {row.plan.get('peak_at')}")
    return "\n".join(lines)
