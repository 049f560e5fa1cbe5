"""What each part of a rack is in each stage: the facts behind the grid, without a picture.

A cell is one part (`embedding`, a stack, `head`) in one stage. Neighbours that are alike in every
respect are one `Span`, so that a rack of 80 stacks over 80 stages is a few hundred of them. The
role of a stack is that of `stackwise.stage.roles`; what else there can be is said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import stackwise as sw
from stackwise.completion import packing
from stackwise.stage import NewStack, Stage, roles, run_share

if TYPE_CHECKING:
    from stackwise import Experiment, Placement

State = Literal["absent", "held", "active", "trunk", "suffix", "adapter"]
STATES: dict[State, tuple[str, str]] = {
    "absent": ("", "not there yet"),
    "held": ("H", "in the rack, but not run in this stage"),
    "active": ("A", "active: it trains"),
    "trunk": ("T", "trunk: frozen, and no gradient reaches it"),
    "suffix": ("S", "suffix: frozen, and gradient passes through it"),
    "adapter": ("L", "adapter: frozen, and a low-rank adapter on it trains"),
}


class Cell(NamedTuple):
    """One part in one stage.

    Attributes:
        state: What it is.
        start: What it starts from in this stage, if it is new: `random`, `copy of s1`, ...
        kept: What its frozen weights are kept in; empty for what trains.
        source: Where frozen weights or their outputs are read from, if not from memory.
        bytes: Predicted bytes by category; None where there is no plan.
        flops: Predicted FLOPs of the stage in this part; None where there is no plan.
        rank: Of the adapter that it carries; 0 without one.
        steps_frac: In what part of the stage's steps it runs; below 1 where steps draw stacks.
    """

    state: State
    start: str = ""
    kept: str = ""
    source: str = ""
    bytes: tuple[tuple[str, int], ...] | None = None
    flops: float | None = None
    rank: int = 0
    steps_frac: float = 1.0


@dataclass(frozen=True)
class Span:
    """Parts next to each other that are alike in a stage: columns `first` to `last`."""

    first: int
    last: int
    cell: Cell

    @property
    def columns(self) -> range:
        """The columns that it covers."""
        return range(self.first, self.last + 1)


def columns_of(exp: Experiment) -> tuple[str, ...]:
    """The parts in the order in which a token meets them."""
    return ("embedding", *sw.stack_ids(exp.rack), "head")


def held_before(stages: Sequence[Stage]) -> Iterator[frozenset[str]]:
    """For each stage the stacks that are in the rack by then, its own new ones included."""
    held: frozenset[str] = frozenset()
    for stage in stages:
        held |= {entry.stack for entry in stage.new or ()}
        yield held


def spans_of(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    held: frozenset[str],
    row: Mapping[str, Any] | None,
) -> list[Span]:
    """One stage, left to right, neighbours that are alike as one span."""
    names, found = columns_of(exp), list[Span]()
    for column, cell in enumerate(_cells(exp, placement, stage, held, row, names)):
        if found and found[-1].cell == cell and 1 < column < len(names) - 1:
            found[-1] = Span(found[-1].first, column, cell)
        else:
            found.append(Span(column, column, cell))
    return found


def _cells(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    held: frozenset[str],
    row: Mapping[str, Any] | None,
    names: Sequence[str],
) -> Iterator[Cell]:
    states, starts, flops = states_of(stage, held, names), starts_of(exp, stage), flops_of(row)
    kept, trained = packing(exp.precision), exp.precision.weights
    parts = {} if row is None else row["bytes_by_part"]
    ranks = {adapter.stack: adapter.rank for adapter in stage.adapters or ()}
    for name in names:
        state, end = states[name], name in ("embedding", "head")
        frozen = state in ("trunk", "suffix", "adapter", "held")
        source = "" if end else source_of(placement, state)
        there = row is not None and state != "absent"
        yield Cell(
            state,
            starts.get(name, ""),
            (trained if end or not kept else kept) if frozen else "",
            source,
            tuple(parts.get(name, {}).items()) if there else None,
            flops.get(name, 0.0) if there else None,
            ranks.get(name, 0),
            run_share(stage, name) if name in stage.path else 1.0,
        )


def states_of(stage: Stage, held: frozenset[str], names: Sequence[str]) -> dict[str, State]:
    """The state of every part. Embedding and head are frozen before, and after, all that trains."""
    found: dict[str, State] = {name: "held" if name in held else "absent" for name in names}
    found |= dict(roles(stage))
    found |= {adapter.stack: "adapter" for adapter in stage.adapters or ()}
    found["embedding"] = "active" if stage.embedding else "trunk"
    found["head"] = "active" if stage.head else "suffix"
    return found


def starts_of(exp: Experiment, stage: Stage) -> dict[str, str]:
    """What the stacks that a stage adds start from."""
    return {entry.stack: start_of(exp, entry) for entry in stage.new or ()}


def start_of(exp: Experiment, entry: NewStack) -> str:
    """What one of them starts from, short enough for a cell."""
    match entry.init:
        case "random":
            return "random" if exp.start is None else f"from {exp.start}"
        case "zero_output":
            return "zero output"
        case "interpolate":
            return f"mean of {entry.source}, {entry.other}"
        case "copy+noise":
            return f"copy of {entry.source} + noise"
        case "copy":
            return f"copy of {entry.source}"


def source_of(placement: Placement, state: State) -> str:
    """Where a frozen stack's work comes from: memory (empty), its blocks, or its cached outputs."""
    if placement.trunk == "recompute" or state not in ("trunk", "suffix", "adapter"):
        return ""
    if placement.trunk == "cached" and state == "trunk":
        return "cached"
    return "streamed"


def flops_of(row: Mapping[str, Any] | None) -> dict[str, float]:
    """FLOPs of a stage in each part; their sum is the stage's. Looking rows up is no product."""
    if row is None:
        return {}
    tokens, found = row["tokens"] or 0, dict[str, float]()
    for block, each in row["block_flops_per_token"].items():
        stack = block.partition(".")[0]
        found[stack] = found.get(stack, 0.0) + tokens * each
    return {**found, "head": tokens * row["flops_per_token"]["head"]}
