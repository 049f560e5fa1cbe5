"""Adapters as an experiment and a stage say them: which frozen stacks carry one, of which rank.

An adapter is a low-rank matrix beside each chosen matrix W of a stack that does not train:
y = x W^T + (alpha / rank) (x A^T) B^T (LoRA, arXiv 2106.09685, section 4.1), with B = 0 at its
start. Adapters on trunk and suffix together are the "dual LoRA" of a rack. What a stage adds to a
stack is in `model/adapters.py`, which numbers they take in `memory/lowrank.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from stackwise.choice import Section, unread
from stackwise.model.shape import RackShape, stack_ids

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.stage import Stage

Targets = Literal["all", "attention", "ffn"]
SUB_LAYERS = ("attention", "ffn")  # of a block: those whose matrices every token goes through
SUFFIX = ".adapter"  # of a part: what trains beside a stack that does not

Rank = Annotated[int, Field(ge=1, le=1 << 16)]
RankOrNone = Annotated[int, Field(ge=0, le=1 << 16)]


def is_for(targets: Targets, sub_layer: str) -> bool:
    """Whether adapters of these targets go on the matrices of a part of a block."""
    return sub_layer in SUB_LAYERS and targets in ("all", sub_layer)


class Adapter(Section):
    """What one frozen stack carries in a stage."""

    stack: str = Field(description="its id")
    rank: int = Field(8, ge=1, le=1 << 16, description="inner width of each low-rank matrix")
    alpha: float = Field(16.0, gt=0, le=1e6, description="the sum is scaled by alpha / rank")
    targets: Targets = Field("all", description="matrices of a block that get one")

    @property
    def part(self) -> str:
        """Its name among the parts that train: `s1.adapter`."""
        return self.stack + SUFFIX


class Adapters(Section):
    """Low-rank adapters (LoRA) on stacks that do not train."""

    on: Literal["none", "trunk", "suffix", "both"] = Field(
        "none",
        description="frozen stacks that carry one: those before the first active stack, after it, "
        "or all; one that a stack has stays until the stack itself trains, and is merged then",
    )
    rank: Rank | tuple[RankOrNone, ...] = Field(
        8, description="of every stack; or a list, one for each stack of the rack, 0 for none"
    )
    over: Literal["constant", "rising"] = Field(
        "constant", description="a single rank over depth: the same, or rising to it from the left"
    )
    alpha: float = Field(16.0, gt=0, le=1e6, description="the sum is scaled by alpha / rank")
    targets: Targets = Field("all", description="matrices of a block that get one")


def ranks(shape: RackShape, knobs: Adapters) -> dict[str, int]:
    """The rank of each stack of a rack; 0 for none.

    Rising: stack i of L gets ceil(rank (i + 1) / L), so that the last one has `rank`.
    """
    ids = stack_ids(shape)
    if isinstance(knobs.rank, tuple):
        return dict(zip(ids, knobs.rank, strict=True))
    if knobs.over == "constant":
        return dict.fromkeys(ids, knobs.rank)
    return {stack: -(-knobs.rank * (i + 1) // len(ids)) for i, stack in enumerate(ids)}


def adapters_on(exp: Experiment, stacks: Sequence[str]) -> tuple[Adapter, ...]:
    """Adapters for some stacks as `exp.adapters` says, whatever it says of sides.

    A curriculum gives them to a stage by name: `Stage(..., adapters=sw.adapters_on(exp, ids))`.
    """
    knobs, each = exp.adapters, ranks(exp.rack, exp.adapters)
    return tuple(
        Adapter(stack=stack, rank=each[stack], alpha=knobs.alpha, targets=knobs.targets)
        for stack in stacks
        if each.get(stack)
    )


def asked_for(
    exp: Experiment, path: Sequence[str], active: Sequence[str], carried: Mapping[str, Adapter]
) -> tuple[Adapter, ...]:
    """The adapters of a stage that leaves them open: those asked for, and those that are there."""
    first = min((path.index(stack) for stack in active if stack in path), default=len(path))
    sides = {"none": (), "trunk": path[:first], "suffix": path[first:], "both": path}
    wanted = {adapter.stack: adapter for adapter in adapters_on(exp, sides[exp.adapters.on])}
    found = {**wanted, **carried}
    return tuple(found[stack] for stack in path if stack in found and stack not in active)


def carried_after(begun: Sequence[Stage]) -> dict[str, Adapter]:
    """The stacks that carry an adapter once these stages have begun."""
    found: dict[str, Adapter] = {}
    for stage in begun:
        found |= {adapter.stack: adapter for adapter in stage.adapters or ()}
        for stack in stage.active or ():
            found.pop(stack, None)
    return found


def knob_problems(exp: Experiment) -> Iterator[str]:
    """What is wrong with the section `adapters` on this rack."""
    knobs, count = exp.adapters, exp.rack.stacks
    if knobs.on == "none":
        for key in ("rank", "over", "alpha", "targets"):
            yield from (f"adapters.{line}" for line in unread(knobs, key, "adapters.on=none"))
        return
    if not isinstance(knobs.rank, tuple):
        return
    yield from (f"adapters.{line}" for line in unread(knobs, "over", "a list of ranks"))
    if len(knobs.rank) != count:
        yield (
            f"adapters.rank: {len(knobs.rank)} ranks for rack.stacks={count}; give one for each "
            "stack, 0 for none"
        )
    if not any(knobs.rank):
        yield f"adapters.rank: {list(knobs.rank)} gives no stack an adapter; use adapters.on=none"
