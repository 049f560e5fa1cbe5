"""Curricula: pure functions from an experiment to its stages.

`stages(exp)` runs the experiment's curriculum, fills in what it left open, and turns the budget
into tokens. To add a curriculum, write a function like those below and put it into `CURRICULA`.
What a stage is stands in `stage.py`, what is filled in and refused in `completion.py`, how the
budget is split in `budget.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from stackwise.budget import with_spans, with_tokens
from stackwise.choice import Choice, Params, find
from stackwise.completion import complete, keeps_no_function
from stackwise.draws import Stream, uniform_BT
from stackwise.errors import ExperimentError, Problem, short
from stackwise.masking import stack_bands
from stackwise.model.shape import RackShape, stack_ids
from stackwise.stage import FULL_BAND, Init, NewStack, Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

MOST_STAGES = 10_000


class EndToEnd(Params):
    """All stacks at once: the control."""

    name: Literal["end_to_end"] = "end_to_end"


class Frozen(Params):
    """What the curricula that freeze stacks have in common."""

    name: str
    init: Init = Field("random", description="start of each stack after the first")
    split: Literal["tokens", "flops"] | tuple[float, ...] = Field(
        "flops", description="budget over the stages: equal tokens, equal FLOPs, or token weights"
    )
    embedding: Literal["first", "always"] = Field("first", description="stages that train it")
    head: Literal["first", "always"] = Field("always", description="stages that train it")


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


class Grow(Params):
    """Stacks copied on top, all trained (G_stack, arXiv 2405.15319)."""

    name: Literal["grow"] = "grow"
    start: int = Field(1, ge=1, le=1024, description="stacks of the first stage")
    by: Literal["double", "one"] = Field(
        "double", description="how depth grows from stage to stage"
    )
    init: Init = Field("copy", description="start of the stacks added")
    split: Literal["tokens", "flops"] | tuple[float, ...] = Field(
        "tokens", description="budget over the stages: equal tokens, equal FLOPs, or token weights"
    )
    lr: Literal["continue", "rewarm", "per_stage"] = Field(
        "continue", description="one schedule over all stages, with a new warm-up, or one each"
    )
    optimizer_state: Literal["reset", "keep"] = Field("reset", description="at each growth")


class BlockCoordinate(Params):
    """One stack after the other, again and again, the rest frozen (block coordinate descent).

    BAdam (arXiv 2404.02827) trains so from an imported model; each visit is a stage.
    """

    name: Literal["block_coordinate"] = "block_coordinate"
    cycles: int = Field(2, ge=1, le=1000, description="how often every stack is visited")
    order: Literal["left_to_right", "right_to_left", "random"] = Field(
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


def end_to_end(exp: Experiment) -> Iterator[Stage]:
    """Train the whole rack in one stage."""
    yield Stage(path=stack_ids(exp.rack))


def left_to_right(exp: Experiment) -> Iterator[Stage]:
    """Append one stack per stage on a frozen trunk."""
    ids, options = stack_ids(exp.rack), cast(LeftToRight, exp.curriculum)
    for i, stack in enumerate(ids):
        yield _one_stack(exp, options, order=i, stack=stack, path=ids[: i + 1], source=ids[i - 1])


def right_to_left(exp: Experiment) -> Iterator[Stage]:
    """Prepend one stack per stage before a frozen suffix."""
    ids, options = stack_ids(exp.rack)[::-1], cast(RightToLeft, exp.curriculum)
    for i, stack in enumerate(ids):
        path = ids[i::-1]
        yield _one_stack(exp, options, order=i, stack=stack, path=path, source=ids[i - 1])


def _one_stack(
    exp: Experiment,
    options: Frozen,
    *,
    order: int,
    stack: str,
    path: tuple[str, ...],
    source: str,
) -> Stage:
    """Stage number `order`, which adds `stack` and trains it alone."""
    init = options.init if order else "random"
    bands = stack_bands(exp.masking, exp.rack.stacks, exp.objective)
    return Stage(
        path=path,
        active=(stack,),
        new=(NewStack(stack=stack, init=init, source=source if init == "copy" else None),),
        embedding=order == 0 or options.embedding == "always",
        head=order == 0 or options.head == "always",
        band=bands[stack_ids(exp.rack).index(stack)],
        **_share(options.split, order),
    )


def grow(exp: Experiment) -> Iterator[Stage]:
    """Train a shallow rack, then stack copies of it on top and train everything."""
    ids, options = stack_ids(exp.rack), cast(Grow, exp.curriculum)
    depths = depths_of(options, len(ids))
    for order, depth in enumerate(depths):
        before = depths[order - 1] if order else 0
        first = before - (depth - before)
        init = options.init if order else "random"
        yield Stage(
            path=ids[:depth],
            new=tuple(
                NewStack(
                    stack=ids[i],
                    init=init,
                    source=ids[first + i - before] if init == "copy" else None,
                )
                for i in range(before, depth)
            ),
            lr=options.lr,
            optimizer_state=options.optimizer_state,
            **_share(options.split, order),
        )


def depths_of(options: Grow, stacks: int) -> list[int]:
    """How many stacks each stage of `grow` has."""
    depths = [min(options.start, stacks)]
    while depths[-1] < stacks:
        step = depths[-1] if options.by == "double" else 1
        depths.append(min(stacks, depths[-1] + step))
    return depths


def block_coordinate(exp: Experiment) -> Iterator[Stage]:
    """Visit one stack after the other, the whole rack being there from the start."""
    ids, options = stack_ids(exp.rack), cast(BlockCoordinate, exp.curriculum)
    for cycle in range(options.cycles):
        for stack in visits(ids, options, exp.seed, cycle):
            yield Stage(
                path=ids,
                active=(stack,),
                embedding=_joins(options.embedding, stack == ids[0]),
                head=_joins(options.head, stack == ids[-1]),
                share_of=options.split,
                lr=options.lr,
                optimizer_state=options.optimizer_state,
            )


def visits(ids: Sequence[str], options: BlockCoordinate, seed: int, cycle: int) -> Sequence[str]:
    """The stacks in the order in which a cycle visits them."""
    match options.order:
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


def _share(split: str | tuple[float, ...], order: int) -> dict[str, Any]:
    return {"share_of": split} if isinstance(split, str) else {"share": split[order]}


def curriculum_problems(shape: RackShape, options: Params) -> Iterator[str]:
    """What is wrong with the parameters of a curriculum here on a rack of this shape."""
    count = shape.stacks
    if isinstance(options, Frozen | Grow) and options.init == "zero_output":
        yield from (f"curriculum.init: {problem}" for problem in keeps_no_function(shape))
    if isinstance(options, Grow):
        if options.start > shape.stacks:
            yield (
                f"curriculum.start: {options.start} > rack.stacks={shape.stacks}; "
                "lower it or add stacks"
            )
            return
        count = len(depths_of(options, shape.stacks))
    if not isinstance(options, Frozen | Grow) or isinstance(options.split, str):
        return
    if len(options.split) != count:
        yield (
            f"curriculum.split: {len(options.split)} weights for {count} stages; "
            "give one for each stage"
        )
    if any(weight <= 0 for weight in options.split):
        yield f"curriculum.split: {options.split} must be over 0; they are weights"


CURRICULA: dict[str, Choice | Callable[[Any], Iterable[Stage]]] = {
    "end_to_end": Choice(end_to_end, EndToEnd),
    "left_to_right": Choice(left_to_right, LeftToRight),
    "right_to_left": Choice(right_to_left, RightToLeft),
    "grow": Choice(grow, Grow),
    "block_coordinate": Choice(block_coordinate, BlockCoordinate),
}


def stages(
    exp: Experiment | str, build: Callable[[Any], Iterable[Stage]] | None = None
) -> tuple[Stage, ...]:
    """The stages of an experiment, complete: what is written into a run and executed.

    Args:
        exp: The experiment, or a preset's name.
        build: The function that makes them; None for that of the experiment's curriculum.

    Raises:
        ExperimentError: If the stages contradict each other, the rack or the budget.
    """
    from stackwise.asked import an_experiment

    exp = an_experiment(exp)
    made = _made(exp, build or find(CURRICULA, exp.curriculum.choice, "curriculum").build)
    return tuple(with_spans(with_tokens(exp, complete(exp, made))))


def _called(name: str, build: Any, exp: Experiment) -> Any:
    """What a curriculum's function gives for an experiment."""
    if not callable(build):
        raise ExperimentError(f"{name!r} is {short(build)}; put a function of an experiment there")
    try:
        inspect.signature(build).bind(exp)
    except TypeError as error:
        raise ExperimentError(
            f"{name!r} cannot be called with an experiment: {error}; begin it as: def f(exp):"
        ) from None
    except ValueError:  # one that does not say what it takes
        pass
    return build(exp)


def _made(exp: Experiment, build: Callable[[Any], Any]) -> list[Stage]:
    """What the curriculum yields or returns, and nothing but stages."""
    name, where, made = exp.curriculum.choice, "curriculum.stages", list[Stage]()
    try:
        found = _called(name, build, exp)
        if isinstance(found, Stage) or not isinstance(found, Iterable):
            raise ExperimentError(
                f"{name!r} returned {short(found)}; yield stages or return a list"
            )
        for stage in found:
            where = f"curriculum.stages[{len(made)}]"
            if not isinstance(stage, Stage):
                raise ExperimentError(f"{short(stage)} is not a Stage")
            if len(made) == MOST_STAGES:
                raise ExperimentError(f"{name!r} makes over {MOST_STAGES} stages; end it")
            made.append(stage)
            where = f"curriculum.stages[{len(made)}]"
    except ExperimentError as error:
        raise error.under(where) from None
    except Exception as error:
        said = f"{name!r} raised {type(error).__name__}: {error}"
        raise ExperimentError([Problem(where, said)]) from error
    if not made:
        raise ExperimentError(f"curriculum.stages: {name!r} makes none; yield one or more")
    if len({stage.share_of for stage in made if stage.tokens is None}) > 1:
        raise ExperimentError(
            "curriculum.stages: some share tokens and some FLOPs; give all of them one share_of"
        )
    return made
