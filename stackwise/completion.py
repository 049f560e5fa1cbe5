"""What a curriculum left open, and whether its stages can be executed on this rack.

A curriculum's function (`curriculum.py`) yields stages that are each right by themselves
(`stage.py`). Here they meet the rack, the objective and each other, before anything trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stackwise.adapters import Adapter, asked_for, carried_after
from stackwise.by_stage import data_problems, with_own_data
from stackwise.errors import ExperimentError
from stackwise.masking import check_band, stack_bands, unserved
from stackwise.model.linears import narrowest
from stackwise.model.shape import RackShape, stack_ids
from stackwise.preserving import with_preserve
from stackwise.stage import FULL_BAND, NewStack, Stage, band_paths, thaws

if TYPE_CHECKING:
    from stackwise.config import Experiment, Precision


LONGEST_NAME = 40


def complete(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Fill in `name`, `active`, `new` and `adapters`, and check that stages can be executed.

    Raises:
        ExperimentError: If a stage contradicts the rack, the objective or a stage before it, or
            if the noise bands of all leave a gap.
    """
    known, seen, out = stack_ids(exp.rack), set[str](), list[Stage]()
    try:
        made = with_own_data(exp, made)
    except ValueError as error:
        raise ExperimentError(str(error)) from None
    for number, stage in enumerate(made):
        active = stage.path if stage.active is None else stage.active
        new = stage.new
        if new is None:
            new = tuple(NewStack(stack=s) for s in stage.path if s not in seen)
        name = stage.name or _name(stage, active, known)
        carried, adapters = carried_after(out), stage.adapters
        if adapters is None:
            adapters = asked_for(exp, stage.path, active, carried)
        stage = stage.model_copy(
            update={"active": active, "new": new, "name": name, "adapters": adapters or None}
        )
        problems = [*_problems(stage, known, seen), *_wrong_for(exp, stage)]
        problems += adapter_problems(exp, stage, carried)
        if problems:
            raise ExperimentError("\n".join(f"curriculum.stages[{number}].{p}" for p in problems))
        seen.update(entry.stack for entry in new)
        out.append(stage)
    out = with_preserve(exp, out)
    band_paths(out)
    _check_bands_are_read(exp, out)
    _check_masters(exp, out)
    return out


def _name(stage: Stage, active: Sequence[str], known: Sequence[str]) -> str:
    """The stacks that train, neighbours in the rack as a row: `s0-s2`, `s0+s3`."""
    if not active:
        return "embedding" if stage.embedding else "head"
    rows: list[list[str]] = []
    for stack in active:
        follows = rows and stack in known and known.index(stack) > 0
        if follows and known[known.index(stack) - 1] == rows[-1][-1]:
            rows[-1].append(stack)
        else:
            rows.append([stack])
    name = "+".join(row[0] if len(row) == 1 else f"{row[0]}-{row[-1]}" for row in rows)
    return name if len(name) <= LONGEST_NAME else f"{active[0]}..{active[-1]}"


def _problems(stage: Stage, known: Sequence[str], seen: set[str]) -> Iterator[str]:
    """What is wrong with a stage on this rack, after the stages before it."""
    new = stage.new or ()
    added = {entry.stack for entry in new}
    for key, names in (("path", set(stage.path)), ("new", added - set(stage.path))):
        for stack in sorted(names - set(known)):
            yield f"{key}: {stack!r} is not a stack of the rack; known: {', '.join(known)}"
    if len(added) < len(new):
        yield "new: a stack is named twice; a stack is added once"
    for stack in sorted(added & seen):
        yield f"new: {stack!r} is there already; a stack is added once"
    for stack in stage.path:
        if stack in known and stack not in seen | added:
            yield f"path: {stack!r} was never added; name it in new"
    if stage.lr != "per_stage" and stage.lr_span != FULL_BAND:
        yield (
            f"lr_span: {stage.lr_span} is filled in with lr={stage.lr}; leave it out, or use "
            "lr=per_stage"
        )
    if stage.legs is not None:
        yield "legs: are filled in while a run whose budget is a time trains; leave them out"
    if stage.progress != FULL_BAND:
        yield f"progress: {stage.progress} is filled in from the tokens; leave it out"
    for entry in new:
        for source in entry.sources:
            if source not in seen:
                there = [stack for stack in known if stack in seen]
                copied = f"copy {', '.join(there)}" if there else "start it at random"
                yield f"new: {entry.stack!r} copies {source!r}, which is not there yet; {copied}"


def _wrong_for(exp: Experiment, stage: Stage) -> Iterator[str]:
    """What is wrong with a stage under the objective and the rack's options."""
    mixed = [n for n in stage.new or () if n.init in ("copy+noise", "interpolate")]
    if exp.rack.spectral_norm and mixed:
        yield (
            f"new: {mixed[0].init} starts {mixed[0].stack!r} at matrices whose norm is not one, as "
            "rack.spectral_norm keeps them; use copy or random, or leave spectral_norm off"
        )
    if any(entry.init == "zero_output" for entry in stage.new or ()):
        yield from (f"new: {problem}" for problem in keeps_no_function(exp.rack))
    yield from data_problems(exp, stage)
    problem = check_band(exp.objective.choice, exp.masking.sampling, stage.band)
    if problem:
        yield problem
    why = unserved(stage.band, exp.data.seq_len)
    if why:
        yield f"band: {why}; widen it or use longer samples"


def adapter_problems(
    exp: Experiment, stage: Stage, carried: Mapping[str, Adapter]
) -> Iterator[str]:
    """What is wrong with the adapters of a stage on this rack, after the stages before it."""
    named = {adapter.stack: adapter for adapter in stage.adapters or ()}
    known, moves = set(stack_ids(exp.rack)), set(stage.active or ())
    if named and exp.rack.spectral_norm:
        yield (
            "adapters: change matrices whose norm rack.spectral_norm keeps at one; use "
            "adapters.on=none, or leave spectral_norm off"
        )
    for adapter in (named[stack] for stack in stage.path if stack in named and stack in known):
        name, least = narrowest(exp.rack, exp.attention, adapter.targets)
        if adapter.rank > least:
            yield (
                f"adapters: rank {adapter.rank} of {adapter.stack} > {least}, the smaller side of "
                f"{name}; lower it"
            )
        before = carried.get(adapter.stack)
        if before is not None and before != adapter:
            yield (
                f"adapters: {adapter.stack} carries one of rank {before.rank}, alpha "
                f"{before.alpha:g} and targets={before.targets}, which trains on; give it the same"
            )
    for stack in (s for s in stage.path if s in carried and s not in named and s not in moves):
        yield (
            f"adapters: {stack} carries one since an earlier stage; name it here, or let {stack} "
            "train, which merges it"
        )
    for entry in stage.new or ():
        for source in (each for each in entry.sources if each in carried):
            yield (
                f"new: {entry.stack!r} copies {source!r}, which carries an adapter; copy "
                "another stack, or let that one train before"
            )


def keeps_no_function(shape: RackShape) -> Iterator[str]:
    """Why a stack that starts with `zero_output` would not pass its input on unchanged."""
    if shape.norm_place == "post":
        yield (
            "zero_output keeps what the rack computes only with rack.norm_place=pre, and it is "
            "post, where each block normalises its input; use random or copy"
        )
    if shape.spectral_norm:
        yield (
            "zero_output starts matrices at zero, which rack.spectral_norm cannot divide by their "
            "largest singular value; use random or copy, or leave spectral_norm off"
        )


def packing(precision: Precision) -> str | None:
    """The format that frozen stacks are packed in; None if they stay as they trained."""
    same = {"float32": None, "bfloat16": "bf16"}[precision.weights]
    return None if precision.frozen == same else precision.frozen


def _check_masters(exp: Experiment, made: Sequence[Stage]) -> None:
    """Raise if a stack trains after it was frozen to less, and nothing better of it is kept."""
    form = packing(exp.precision)
    if form is None or exp.precision.master != "none":
        return
    for stack, frozen, trains in thaws(made):
        raise ExperimentError(
            f"precision.master: none, but stage {trains} trains {stack}, which is frozen to {form} "
            f"in stage {frozen} and would go on from what {form} left of it; give master=bf16 or "
            "fp32, or leave precision.frozen empty"
        )


def _check_bands_are_read(exp: Experiment, made: Sequence[Stage]) -> None:
    """Raise if the experiment asks for noise bands and its curriculum gives none to its stages."""
    bands = stack_bands(exp.masking, exp.rack.stacks, exp.objective)
    edges = {edge for low, high in bands for edge in (low, high)} - {0.0, 1.0}
    if edges and not any(edges & set(stage.band) for stage in made):
        raise ExperimentError(
            f"masking.bands: {exp.masking.bands} is carried by no stage of curriculum="
            f"{exp.curriculum.choice}; give its stages a band, or leave bands empty"
        )
