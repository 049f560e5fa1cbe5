"""Curricula: pure functions from an experiment to its stages.

`stages(exp)` runs the experiment's curriculum, fills in what it left open, and turns the budget
into tokens. To add a curriculum, write a function like those below and put it into `CURRICULA`.
What a stage is stands in `stage.py`, what it costs in `memory/flops.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from stackwise.choice import Choice, Params, find
from stackwise.errors import ExperimentError
from stackwise.masking import stack_bands
from stackwise.memory.flops import stage_flops_per_token
from stackwise.model.shape import stack_ids
from stackwise.stage import Init, NewStack, Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment

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
    by: Literal["double", "one"] = Field("double", description="how depth grows from stage to stage")
    init: Init = Field("copy", description="start of the stacks added")
    split: Literal["tokens", "flops"] | tuple[float, ...] = Field(
        "tokens", description="budget over the stages: equal tokens, equal FLOPs, or token weights"
    )
    lr: Literal["continue", "rewarm", "per_stage"] = Field(
        "continue", description="one schedule over all stages, with a new warm-up, or one each"
    )
    optimizer_state: Literal["reset", "keep"] = Field("reset", description="at each growth")


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
        **_share(options.split, order, exp.rack.stacks),
    )


def grow(exp: Experiment) -> Iterator[Stage]:
    """Train a shallow rack, then stack copies of it on top and train everything."""
    ids, options = stack_ids(exp.rack), cast(Grow, exp.curriculum)
    if options.start > len(ids):
        raise ExperimentError(
            f"curriculum.start: {options.start} > rack.stacks={len(ids)}; lower it or add stacks"
        )
    depths = [options.start]
    while depths[-1] < len(ids):
        step = depths[-1] if options.by == "double" else 1
        depths.append(min(len(ids), depths[-1] + step))
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
            **_share(options.split, order, len(depths)),
        )


def _share(split: str | tuple[float, ...], order: int, count: int) -> dict[str, Any]:
    if isinstance(split, str):
        return {"share_of": split}
    if len(split) != count:
        raise ExperimentError(
            f"curriculum.split: {len(split)} weights for {count} stages; give one for each"
        )
    return {"share": split[order]}


CURRICULA: dict[str, Choice | Callable[[Any], Iterable[Stage]]] = {
    "end_to_end": Choice(end_to_end, EndToEnd),
    "left_to_right": Choice(left_to_right, LeftToRight),
    "right_to_left": Choice(right_to_left, RightToLeft),
    "grow": Choice(grow, Grow),
}


def stages(exp: Experiment) -> tuple[Stage, ...]:
    """The stages of an experiment, complete: what is written into a run and executed.

    Raises:
        ExperimentError: If the stages contradict each other, the rack or the budget.
    """
    build = find(CURRICULA, exp.curriculum.choice, "curriculum").build
    made = list(build(exp))
    if not made:
        raise ExperimentError(f"curriculum {exp.curriculum.choice!r} makes no stages")
    return tuple(_spans(_with_tokens(exp, _complete(exp, made))))


def _complete(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Fill in `name`, `active` and `new`, and check that the stages can be executed."""
    known, seen, out = stack_ids(exp.rack), set[str](), []
    for number, stage in enumerate(made):
        active = stage.path if stage.active is None else stage.active
        new = stage.new
        if new is None:
            new = tuple(NewStack(stack=s) for s in stage.path if s not in seen)
        name = stage.name or (active[0] if len(active) == 1 else f"{active[0]}-{active[-1]}")
        stage = stage.model_copy(update={"active": active, "new": new, "name": name})
        problems = list(_problems(stage, known, seen))
        if problems:
            raise ExperimentError("\n".join(f"curriculum.stages[{number}].{p}" for p in problems))
        seen.update(entry.stack for entry in new)
        out.append(stage)
    return out


def _problems(stage: Stage, known: Sequence[str], seen: set[str]) -> Iterator[str]:
    active, new = stage.active or (), stage.new or ()
    added = {entry.stack for entry in new}
    for stack in (*stage.path, *added):
        if stack not in known:
            yield f"path: {stack!r} is not a stack of the rack; known: {', '.join(known)}"
    if len(set(stage.path)) < len(stage.path):
        yield f"path: {stage.path} names a stack twice"
    for stack in set(active) - set(stage.path):
        yield f"active: {stack!r} is not on the path {', '.join(stage.path)}"
    for stack in sorted(added & seen):
        yield f"new: {stack!r} is there already; a stack is added once"
    for stack in stage.path:
        if stack in known and stack not in seen | added:
            yield f"path: {stack!r} was never added; name it in new"
    for entry in new:
        if entry.init == "copy" and entry.source not in seen:
            yield f"new: {entry.stack!r} copies {entry.source!r}, which is not there yet"
    if not (active or stage.embedding or stage.head):
        yield "active: nothing trains; name a stack, the embedding or the head"
    low, high = stage.band
    if not 0 <= low < high <= 1:
        yield f"band: ({low}, {high}) must rise within 0 and 1"


def _with_tokens(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Give every stage whole optimizer steps, so that the budget is met."""
    step = exp.optim.batch * exp.data.seq_len
    costs = [stage_flops_per_token(exp, stage).total for stage in made]
    fixed = [stage.tokens for stage in made]
    weights = [
        0.0 if t else s.share / (c if s.share_of == "flops" else 1.0)
        for s, c, t in zip(made, costs, fixed, strict=True)
    ]
    unit = costs if exp.budget.flops is not None else [1.0] * len(made)
    budget = exp.budget.flops if exp.budget.flops is not None else float(exp.budget.tokens or 0)
    left = budget - sum(u * t for u, t in zip(unit, fixed, strict=True) if t)
    scale = left / total if (total := sum(u * w for u, w in zip(unit, weights, strict=True))) else 0
    ends = [round(x) for x in accumulate(w * scale / step for w in weights)]
    steps = [b - a for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    out = []
    for number, (stage, count, given) in enumerate(zip(made, steps, fixed, strict=True)):
        whole = -(-given // step) if given else count
        if whole < 1:
            need = step * max(u for u in unit) * len(made)
            raise ExperimentError(
                f"budget: {budget:.3g} leaves stage {number} ({stage.name}) without one step of "
                f"{step} tokens; give at least {need:.3g}, or lower optim.batch"
            )
        out.append(stage.model_copy(update={"tokens": whole * step}))
    return out


def _spans(made: Sequence[Stage]) -> list[Stage]:
    """Lay stages that continue one schedule end to end on it, by tokens."""
    shared = [stage.lr != "per_stage" for stage in made]
    whole = sum(s.tokens or 0 for s, share in zip(made, shared, strict=True) if share)
    out, done = [], 0
    for stage, share in zip(made, shared, strict=True):
        if share:
            start, done = done, done + (stage.tokens or 0)
            stage = stage.model_copy(update={"lr_span": (start / whole, done / whole)})
        out.append(stage)
    return out
