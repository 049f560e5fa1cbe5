"""Curricula that add one stack at a time and train it alone, the others frozen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from stackwise.choice import Params
from stackwise.curricula.options import (
    NOISE,
    Carried,
    Fuse,
    Noise,
    Rates,
    Split,
    fused,
    share,
    started,
    weights_problems,
)
from stackwise.masking import stack_bands
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import Init, Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment


class Frozen(Params):
    """What the curricula that freeze stacks have in common."""

    newer = frozenset({"noise", "lr", "optimizer_state", "fuse"})

    name: str
    init: Init = Field("random", description="start of each stack after the first")
    noise: Noise = NOISE
    split: Split = "flops"
    embedding: Literal["first", "always"] = Field("first", description="stages that train it")
    head: Literal["first", "always"] = Field("always", description="stages that train it")
    lr: Rates = "per_stage"
    optimizer_state: Carried = "reset"
    fuse: Fuse = 0.0


class LeftToRight(Frozen):
    """Stacks appended on a frozen trunk: capacity growth."""

    name: Literal["left_to_right"] = "left_to_right"


class RightToLeft(Frozen):
    """Stacks prepended before a frozen suffix that gradient crosses: semantic preservation."""

    name: Literal["right_to_left"] = "right_to_left"
    embedding: Literal["first", "always"] = Field(
        "always", description="stages that train it; with bands `first` keeps lighter bands exact"
    )
    head: Literal["first", "always"] = Field("first", description="stages that train it")


class FreezeThaw(Params):
    """Each new stack alone on a frozen trunk, then all together (CGLS, arXiv 2506.11389)."""

    name: Literal["freeze_thaw"] = "freeze_thaw"
    init: Init = Field("random", description="start of each stack after the first")
    noise: Noise = NOISE
    thaw: float = Field(
        0.5, gt=0, lt=1, description="part of each stack's share in which all train"
    )
    split: Literal["tokens", "flops"] = Field(
        "tokens", description="budget over the stacks: equal tokens or equal FLOPs"
    )
    embedding: Literal["thawed", "always"] = Field(
        "thawed", description="stages that train it: those in which all train, or all"
    )
    lr: Rates = "per_stage"
    optimizer_state: Carried = "reset"


def left_to_right(exp: Experiment) -> Iterator[Stage]:
    """Append one stack per stage on a frozen trunk."""
    ids = stack_ids(exp.rack)
    options = cast(LeftToRight, exp.curriculum)
    made = (_alone(exp, options, ids[: i + 1], i, stack, ids[i - 1]) for i, stack in enumerate(ids))
    yield from fused(made, ids, options.fuse)


def right_to_left(exp: Experiment) -> Iterator[Stage]:
    """Prepend one stack per stage before a frozen suffix."""
    ids = stack_ids(exp.rack)[::-1]
    options = cast(RightToLeft, exp.curriculum)
    made = (_alone(exp, options, ids[i::-1], i, stack, ids[i - 1]) for i, stack in enumerate(ids))
    yield from fused(made, ids[::-1], options.fuse)


def _alone(
    exp: Experiment,
    options: Frozen,
    path: tuple[str, ...],
    number: int,
    stack: str,
    source: str,
) -> Stage:
    """Stage `number`, which adds `stack` and trains it alone."""
    init: Init = options.init if number else "random"
    bands = stack_bands(exp.masking, exp.rack.stacks, exp.objective)
    return Stage(
        path=path,
        active=(stack,),
        new=(started(stack, init, source, noise=options.noise),),
        embedding=number == 0 or options.embedding == "always",
        head=number == 0 or options.head == "always",
        band=bands[stack_ids(exp.rack).index(stack)],
        lr=options.lr,
        optimizer_state=options.optimizer_state,
        **share(options.split, number),
    )


def freeze_thaw(exp: Experiment) -> Iterator[Stage]:
    """Train each new stack alone, then everything so far."""
    ids, options = stack_ids(exp.rack), cast(FreezeThaw, exp.curriculum)
    common: dict[str, Any] = {
        "lr": options.lr,
        "optimizer_state": options.optimizer_state,
        "share_of": options.split,
    }
    yield Stage(path=ids[:1], **common)
    for i, stack in enumerate(ids[1:], start=1):
        path, init = ids[: i + 1], options.init
        yield Stage(
            path=path,
            active=(stack,),
            new=(started(stack, init, ids[i - 1], noise=options.noise),),
            embedding=options.embedding == "always",
            share=1 - options.thaw,
            **common,
        )
        yield Stage(path=path, share=options.thaw, **common)


def frozen_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the options of these curricula on a rack of this shape."""
    if isinstance(options, Frozen):
        yield from weights_problems(options.split, shape.stacks)
