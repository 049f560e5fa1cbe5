"""What a stage is held to beside its loss, so that growth keeps what the rack means.

Two terms, both of the rack as the stage before left it (`Stage.before` is its path):

- `consistency`: stacks that are grown at the left put out what the frozen suffix was trained on,
  the output of the embedding: per position |y - e|^2 / |e|^2, where y goes into the suffix and e is
  the embedding as it was, for the same tokens; the mean over all positions, noisy and clean ones
  where text is read block by block, since the suffix was trained on both.
- `distill`: the divergence KL(before || now) of predictions at the positions that count, with the
  weights of the loss, both at a temperature T and times T^2 (Hinton et al., arXiv 1503.02531,
  section 2.1, where gradients of soft targets go down as 1 / T^2).

Here it is decided which stages they have a meaning in. The terms are in `training/holding.py`, what
they take in `memory/held.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from stackwise.adapters import SUFFIX
from stackwise.block_diffusion import read_as
from stackwise.by_stage import as_read, in_blocks
from stackwise.errors import ExperimentError
from stackwise.stage import Stage, parts_trained, roles, trunk_of

if TYPE_CHECKING:
    from stackwise.config import Experiment


def with_preserve(exp: Experiment, made: Sequence[Stage]) -> list[Stage]:
    """Give stages the terms that the experiment asks for, where they have a meaning.

    A stage that says itself what it is held to keeps that, and is told the path before it.

    Raises:
        ExperimentError: If a term has a meaning in no stage, or not in the one that asks for it.
    """
    out = list(made)
    for number, stage in enumerate(made):
        asked = exp.preserve if stage.preserve is None else stage.preserve
        why = {
            term: list(meaningless(exp, made, number, term)) for term in ("consistency", "distill")
        }
        if stage.preserve is not None:
            problems = [
                f"curriculum.stages[{number}].preserve.{term}: {getattr(asked, term)}, but "
                f"{lines[0]}; leave it at 0"
                for term, lines in why.items()
                if lines and getattr(asked, term)
            ]
            if problems:
                raise ExperimentError("\n".join(problems))
        kept = asked.model_copy(update={term: 0.0 for term, lines in why.items() if lines})
        held = {"preserve": kept, "before": made[number - 1].path} if kept.asks else {}
        out[number] = stage.model_copy(update={"preserve": None, "before": None, **held})
    for term in ("consistency", "distill"):
        value = getattr(exp.preserve, term)
        if value and not any(stage.preserve and getattr(stage.preserve, term) for stage in out):
            last = next(iter(meaningless(exp, made, len(made) - 1, term)))
            raise ExperimentError(
                f"preserve.{term}: {value} has a meaning in no stage of curriculum="
                f"{exp.curriculum.choice}: {last}; leave it at 0, or use {WHERE[term]}"
            )
    return out


WHERE = {"consistency": "right_to_left", "distill": "left_to_right, right_to_left or grow"}


def meaningless(exp: Experiment, made: Sequence[Stage], number: int, term: str) -> Iterator[str]:
    """Why a term has no meaning in a stage; nothing if it has."""
    if not number:
        yield "no stage comes before it"
        return
    stage, before = made[number], made[number - 1]
    if stage.pick is not None or before.pick is not None:
        yield "its steps run some of the stacks alone, so that there is no one rack before it"
    if term == "consistency":
        if not grows_left(stage, before.path):
            yield "it grows no stack at the left of a frozen suffix that the stage before ran"
        return
    if not set(before.path) <= set(stage.path):
        yield "it does not go on with all stacks of the stage before"
    if stage.band != before.band:
        yield "the stage before has met other noise, which its predictions are no target for"
    if not in_like_blocks(exp, stage, before):
        yield (
            "the stage before read blocks of another size, for which its predictions are no target"
        )


def in_like_blocks(exp: Experiment, stage: Stage, before: Stage) -> bool:
    """Whether two stages read text in blocks of one size, or both each sample as one block."""
    sizes = {getattr(in_blocks(exp, each).objective, "last", None) for each in (stage, before)}
    read = [as_read(exp, each) for each in (stage, before)]
    return len(sizes) == 1 or not any(read_as(e.objective, e.data.seq_len) for e in read)


def grows_left(stage: Stage, before: Sequence[str]) -> bool:
    """Whether a stage trains a stack right before a frozen suffix that is the path before it."""
    first = len(stage.path) - len(before)
    if first < 1 or not before or stage.path[first:] != tuple(before):
        return False
    role = roles(stage)
    return role[stage.path[first - 1]] == "active" and role[stage.path[first]] == "suffix"


def joint_of(stage: Stage) -> int | None:
    """The place in the path where the suffix begins that consistency is for; None without it."""
    if stage.preserve is None or not stage.preserve.consistency or stage.before is None:
        return None
    return len(stage.path) - len(stage.before)


def copied_parts(stage: Stage) -> set[str]:
    """Parts of the rack before that are kept as they were, since the stage trains them."""
    needed = set[str]()
    if stage.preserve is not None and stage.preserve.consistency:
        needed |= {"embedding"}
    if stage.preserve is not None and stage.preserve.distill:
        needed |= {"embedding", "head", *(stage.before or ())}
        needed |= {stack + SUFFIX for stack in path_read(stage)}
    return needed & parts_trained(stage)


def shares_trunk(stage: Stage) -> bool:
    """Whether the rack before begins with the stage's trunk, whose output then serves both."""
    trunk = trunk_of(stage)
    return bool(trunk) and (stage.before or ())[: len(trunk)] == trunk


def path_read(stage: Stage) -> tuple[str, ...]:
    """The stacks of the rack before that run beside a step: all, or those after a shared trunk."""
    if stage.preserve is None or not stage.preserve.distill:
        return ()
    return (stage.before or ())[len(trunk_of(stage)) if shares_trunk(stage) else 0 :]


def distils(stage: Stage) -> bool:
    """Whether the rack before predicts beside a step."""
    return stage.preserve is not None and stage.preserve.distill > 0
