"""Curricula that begin with a whole rack: all of it at once, or let loose from one end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from stackwise.adapters import adapters_on
from stackwise.by_stage import phases
from stackwise.choice import Params
from stackwise.curricula.options import Carried, Rates, Split, share, weights_problems
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment


class EndToEnd(Params):
    """All stacks at once: the control."""

    name: Literal["end_to_end"] = "end_to_end"


class GradualUnfreezing(Params):
    """One more stack is let loose in each stage, from one end on (ULMFiT, arXiv 1801.06146)."""

    name: Literal["gradual_unfreezing"] = "gradual_unfreezing"
    order: Literal["right_to_left", "left_to_right"] = Field(
        "right_to_left", description="from which end stacks are let loose"
    )
    embedding: Literal["last", "always", "never"] = Field(
        "last", description="stages that train it: the one in which all do, all, none"
    )
    split: Split = "tokens"
    lr: Rates = "per_stage"
    optimizer_state: Literal["reset", "keep"] = Field(
        "keep", description="what tensors that trained in the stage before begin with"
    )


class Fusion(Params):
    """Joint training of a finished or imported rack (`start`), of all or of its head alone.

    Or of adapters on all of its stacks, which stay as they are (LoRA, arXiv 2106.09685).

    With another objective than the rack's own, it turns a bidirectional rack into a causal one, or
    the other way round.
    """

    name: Literal["fusion"] = "fusion"
    train: Literal["all", "head", "adapters"] = Field(
        "all",
        description="what trains; adapters: a low-rank one on every stack, as the section adapters "
        "says, and the head",
    )
    head_first: float = Field(
        0.0, ge=0, lt=1, description="part of all tokens in which the head trains alone, before"
    )
    lr: Rates = "per_stage"
    optimizer_state: Carried = "keep"


def end_to_end(exp: Experiment) -> Iterator[Stage]:
    """Train the whole rack in one stage.

    Where data change by stage, in as many as there are changes: one learning-rate schedule and the
    optimizer's moments go through all of them.
    """
    parts = phases(exp)
    for _ in range(parts):
        if parts == 1:
            yield Stage(path=stack_ids(exp.rack))
        else:
            yield Stage(path=stack_ids(exp.rack), lr="continue", optimizer_state="keep")


def gradual_unfreezing(exp: Experiment) -> Iterator[Stage]:
    """Train the stacks of one end, one more in each stage; the head always."""
    ids, options = stack_ids(exp.rack), cast(GradualUnfreezing, exp.curriculum)
    for number in range(len(ids)):
        whole = number == len(ids) - 1
        free = number + 1
        yield Stage(
            path=ids,
            active=ids[-free:] if options.order == "right_to_left" else ids[:free],
            embedding=options.embedding == "always" or (options.embedding == "last" and whole),
            lr=options.lr,
            optimizer_state=options.optimizer_state,
            **share(options.split, number),
        )


def fusion(exp: Experiment) -> Iterator[Stage]:
    """Train a rack that is there already, its head before the rest if that is asked for."""
    ids, options = stack_ids(exp.rack), cast(Fusion, exp.curriculum)
    head = Stage(name="head", path=ids, active=(), embedding=False, lr=options.lr)
    if options.train == "head":
        yield head
        return
    beside = options.train == "adapters"
    if options.head_first:
        alone = {"adapters": ()} if beside else {}
        yield head.model_copy(update={"share": options.head_first, **alone})
    yield Stage(
        path=ids,
        active=() if beside else None,
        embedding=not beside,
        adapters=adapters_on(exp, ids) if beside else None,
        lr=options.lr,
        optimizer_state=options.optimizer_state,
        share=1 - options.head_first,
    )


def thawing_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the options of these curricula on a rack of this shape."""
    if isinstance(options, GradualUnfreezing):
        yield from weights_problems(options.split, shape.stacks)
    if isinstance(options, Fusion) and options.train == "head" and options.head_first:
        yield (
            f"curriculum.head_first: {options.head_first} is not read with train=head; "
            "leave it at 0"
        )
