"""Curricula that train one stack at a time without growth: in turn, or each alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from stackwise.choice import Params
from stackwise.curricula.options import Fuse, Rates, fused
from stackwise.draws import Stream, uniform_BT
from stackwise.masking import stack_bands
from stackwise.model.shape import stack_ids
from stackwise.stage import FULL_BAND, Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

Order = Literal["left_to_right", "right_to_left", "random"]


class BlockCoordinate(Params):
    """One stack after the other, again and again, the rest frozen (block coordinate descent).

    BAdam (arXiv 2404.02827) trains so from an imported model, LISA (2403.17919) in random order;
    each visit is a stage.
    """

    name: Literal["block_coordinate"] = "block_coordinate"
    cycles: int = Field(2, ge=1, le=1000, description="how often every stack is visited")
    order: Order = Field(
        "left_to_right", description="of the visits in a cycle; random: another one in each"
    )
    embedding: Literal["with_first", "always", "never"] = Field(
        "with_first", description="visits that train it: those of the first stack, all, none"
    )
    head: Literal["always", "with_last", "never"] = Field(
        "always", description="visits that train it: all, those of the last stack, none"
    )
    split: Literal["tokens", "flops"] = Field(
        "tokens", description="budget over the visits: equal tokens or equal FLOPs"
    )
    lr: Literal["per_stage", "continue", "rewarm"] = Field(
        "continue", description="one schedule over all visits, with a new warm-up, or one each"
    )
    optimizer_state: Literal["reset", "keep"] = Field(
        "reset", description="what a stack's moments begin with when it is visited again"
    )
    fuse: Fuse = 0.0


class DiffusionBlocks(Params):
    """Each stack alone on its own noise band, without neighbours (arXiv 2506.14202).

    A stack is trained and used on its band alone, between the shared embedding and head. In the
    paper bands overlap a little, and each step draws another stack; here they tile the noise, and a
    stack is visited for a stage.
    """

    name: Literal["diffusion_blocks"] = "diffusion_blocks"
    cycles: int = Field(2, ge=1, le=1000, description="how often every stack is visited")
    order: Order = Field(
        "left_to_right", description="of the visits in a cycle; left is the heaviest noise"
    )
    embedding: Literal["first", "always"] = Field("always", description="visits that train it")
    head: Literal["first", "always"] = Field("always", description="visits that train it")
    lr: Rates = "continue"
    optimizer_state: Literal["reset", "keep"] = Field(
        "keep", description="what a stack's moments begin with when it is visited again"
    )


class Independent(Params):
    """Each stack alone between embedding and head, then all in a row: the negative control."""

    name: Literal["independent"] = "independent"
    join: Literal["head", "all"] = Field(
        "head", description="what the last stage trains, in which all are joined"
    )
    joined: float = Field(0.1, gt=0, lt=1, description="part of all tokens that it gets")
    lr: Rates = "per_stage"
    optimizer_state: Literal["reset", "keep"] = Field(
        "reset", description="what embedding's and head's moments begin with in each stage"
    )


def block_coordinate(exp: Experiment) -> Iterator[Stage]:
    """Visit one stack after the other, the whole rack being there from the start."""
    ids, options = stack_ids(exp.rack), cast(BlockCoordinate, exp.curriculum)
    visited = (
        Stage(
            path=ids,
            active=(stack,),
            embedding=_joins(options.embedding, stack == ids[0]),
            head=_joins(options.head, stack == ids[-1]),
            share_of=options.split,
            lr=options.lr,
            optimizer_state=options.optimizer_state,
        )
        for cycle in range(options.cycles)
        for stack in visits(ids, options.order, exp.seed, cycle)
    )
    yield from fused(visited, ids, options.fuse)


def visits(ids: Sequence[str], order: Order, seed: int, cycle: int) -> Sequence[str]:
    """The stacks in the order in which a cycle visits them."""
    match order:
        case "left_to_right":
            return ids
        case "right_to_left":
            return ids[::-1]
        case "random":
            drawn = uniform_BT(seed, [cycle], [0], FULL_BAND, len(ids), Stream.VISITS)[0]
            return [ids[i] for i in drawn.argsort()]


def _joins(rule: str, beside: bool) -> bool:
    """Whether embedding or head train in a visit; `beside`: of the stack next to it."""
    return rule == "always" or (rule != "never" and beside)


def diffusion_blocks(exp: Experiment) -> Iterator[Stage]:
    """Visit the stacks, each alone on its path and on its band."""
    ids, options = stack_ids(exp.rack), cast(DiffusionBlocks, exp.curriculum)
    bands = dict(zip(ids, stack_bands(exp.masking, len(ids), exp.objective), strict=True))
    first = True
    for cycle in range(options.cycles):
        for stack in visits(ids, options.order, exp.seed, cycle):
            yield Stage(
                path=(stack,),
                band=bands[stack],
                embedding=first or options.embedding == "always",
                head=first or options.head == "always",
                lr=options.lr,
                optimizer_state=options.optimizer_state,
            )
            first = False


def independent(exp: Experiment) -> Iterator[Stage]:
    """Train every stack alone, then join them."""
    ids, options = stack_ids(exp.rack), cast(Independent, exp.curriculum)
    common: dict[str, Any] = {"lr": options.lr, "optimizer_state": options.optimizer_state}
    for stack in ids:
        yield Stage(path=(stack,), share=(1 - options.joined) / len(ids), **common)
    alone = options.join == "head"
    yield Stage(
        name="joined",
        path=ids,
        active=() if alone else None,
        embedding=not alone,
        share=options.joined,
        **common,
    )
