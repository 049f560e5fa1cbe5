"""Curricula that make the rack deeper and train all of it at every depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal, cast

from pydantic import Field

from stackwise.choice import Params, unread
from stackwise.curricula.options import (
    NOISE,
    Carried,
    Noise,
    Rates,
    Split,
    share,
    started,
    weights_problems,
)
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import Init, NewStack, Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

Place = Literal["top", "between", "middle"]


class Grow(Params):
    """Stacks added to a rack that trains as a whole at every depth.

    `place=top` puts copies of all on top (G_stack, arXiv 2405.15319); `between` puts each copy
    after its source, and `middle` puts copies of those in the middle there, with `by=one` of the
    middle stack (MIDAS, arXiv 2409.19044).
    """

    newer = frozenset({"place", "noise"})

    name: Literal["grow"] = "grow"
    start: int = Field(1, ge=1, le=1024, description="stacks of the first stage")
    by: Literal["double", "one"] = Field(
        "double", description="how depth grows from stage to stage"
    )
    place: Place = Field(
        "top", description="where stacks are added: on top, each after its source, or in the middle"
    )
    init: Init = Field("copy", description="start of the stacks added")
    noise: Noise = NOISE
    split: Split = "tokens"
    lr: Rates = "continue"
    optimizer_state: Carried = "reset"


class OneHop(Params):
    """A source of no, one or two stacks, then the whole depth at once (arXiv 2511.04981).

    Its claim needs a learning rate that is flat until after the growth: `optim.schedule=wsd`, and
    `hop` before the decay.
    """

    newer = frozenset({"place"})

    name: Literal["one_hop"] = "one_hop"
    source: int = Field(
        1, ge=0, le=2, description="stacks that train first; 0: embedding and head alone"
    )
    hop: float = Field(0.5, gt=0, lt=1, description="part of all tokens before the growth")
    place: Place = Field(
        "top", description="where stacks are added: on top, each after its source, or in the middle"
    )
    init: Init = Field("random", description="start of the stacks added; copies go in turn")
    noise: Noise = NOISE
    lr: Rates = "continue"
    optimizer_state: Carried = "keep"


def grow(exp: Experiment) -> Iterator[Stage]:
    """Train a shallow rack, then add stacks to it and train everything, until it is whole."""
    ids, options = stack_ids(exp.rack), cast(Grow, exp.curriculum)
    paths = paths_of(ids, depths_of(options, len(ids)), options.place)
    for number, path in enumerate(paths):
        before = paths[number - 1] if number else ()
        yield Stage(
            path=path,
            new=added(path, before, options.init, options.place, options.noise),
            lr=options.lr,
            optimizer_state=options.optimizer_state,
            **share(options.split, number),
        )


def depths_of(options: Grow, stacks: int) -> list[int]:
    """How many stacks each stage of `grow` has."""
    depths = [min(options.start, stacks)]
    while depths[-1] < stacks:
        step = depths[-1] if options.by == "double" else 1
        depths.append(min(stacks, depths[-1] + step))
    return depths


def paths_of(ids: Sequence[str], depths: Sequence[int], place: Place) -> list[tuple[str, ...]]:
    """The stacks of each depth, in the order of the finished rack, so that ids tell places.

    From the whole rack backwards, a depth takes away what the one after it adds: the last stacks,
    or those next after evenly spread ones that stay, or those in the middle.
    """
    paths = [tuple(ids)]
    for smaller in depths[-2::-1]:
        path = paths[0]
        gone = len(path) - smaller
        match place:
            case "top":
                left = set(path[:smaller])
            case "between":
                left = {path[i * len(path) // smaller] for i in range(smaller)}
            case "middle":
                first = (smaller + 1) // 2
                left = set(path) - set(path[first : first + gone])
        paths.insert(0, tuple(stack for stack in path if stack in left))
    return paths


def added(
    path: Sequence[str], before: Sequence[str], init: Init, place: Place, noise: float
) -> tuple[NewStack, ...]:
    """What a path adds to the one before it, and what each of its new stacks starts from.

    Between others a copy is of the stack at its left. On top k new ones are copies of the k before
    them, and in the middle of the k around their place, in their order and, where those are fewer,
    in turn. `interpolate` takes the mean of the nearest at either side.
    """
    if not before:
        return tuple(NewStack(stack=stack) for stack in path)
    found = []
    for isnew, group in groupby(path, lambda stack: stack not in before):
        row = list(group)
        if not isnew:
            left = before[: before.index(row[-1]) + 1]
            continue
        rights = before[len(left) :]
        if place == "between" or init == "interpolate":
            tail = left[-1:]
        else:
            begins = len(left) - (len(row) + 1) // 2 if place == "middle" else len(before)
            begins = max(0, min(begins, len(before) - len(row)))
            tail = before[begins : begins + len(row)]
        for i, stack in enumerate(row):
            source, other = tail[i % len(tail)], rights[0] if rights else None
            found.append(started(stack, init, source, other=other, noise=noise))
    return tuple(found)


def one_hop(exp: Experiment) -> Iterator[Stage]:
    """Train a source of a few stacks, then the whole rack."""
    ids, options = stack_ids(exp.rack), cast(OneHop, exp.curriculum)
    source, _ = paths_of(ids, [min(options.source, len(ids) - 1), len(ids)], options.place)
    if source and options.place != "top":
        new = added(ids, source, options.init, options.place, options.noise)
    else:
        new = tuple(
            started(
                stack,
                options.init,
                source[i % len(source)] if source else stack,
                noise=options.noise,
            )
            for i, stack in enumerate(ids[len(source) :])
        )
    yield Stage(path=source, lr=options.lr, share=options.hop)
    yield Stage(
        path=ids,
        new=new,
        lr=options.lr,
        optimizer_state=options.optimizer_state,
        share=1 - options.hop,
    )


def growing_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the options of these curricula on a rack of this shape."""
    if isinstance(options, OneHop):
        if shape.stacks <= options.source:
            yield (
                f"curriculum.source: {options.source} leaves nothing to add with rack.stacks="
                f"{shape.stacks}; lower it or add stacks"
            )
        if options.source == 0 and options.init not in ("random", "zero_output"):
            yield (
                f"curriculum.init: {options.init} needs a stack to start from, and source=0 has "
                "none; use random or zero_output"
            )
        if options.source == 0:
            yield from (f"curriculum.{x}" for x in unread(options, "place", "source=0"))
    if not isinstance(options, Grow):
        return
    if options.start > shape.stacks:
        yield (
            f"curriculum.start: {options.start} > rack.stacks={shape.stacks}; "
            "lower it or add stacks"
        )
        return
    yield from weights_problems(options.split, len(depths_of(options, shape.stacks)))
