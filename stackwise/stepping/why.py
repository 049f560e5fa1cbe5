"""Why a stage is carried out as it is: what layer-wise training turns on, said of this stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise.memory.disk import layout_of
from stackwise.model.shape import stack_ids
from stackwise.report import bytes_text
from stackwise.stage import FULL_BAND, Stage, paths_so_far, roles, trunk_of
from stackwise.stepping.starts import grown
from stackwise.stepping.words import listed, named, runs

if TYPE_CHECKING:
    from stackwise.config import Experiment

MOST = 6  # stacks of a path that are named


@dataclass(frozen=True)
class Why:
    """A question that a stage raises, and the answer.

    Attributes:
        about: `trunk`, `suffix`, `band`, `grow`, `drawn`, `alone` or `whole`.
        question: For a heading.
        answer: Some sentences.
    """

    about: str
    question: str
    answer: str


def why_of(exp: Experiment, stages: Sequence[Stage], number: int) -> tuple[Why, ...]:
    """What is to be said of stage `number`, the most particular first."""
    return tuple(_found(exp, stages, number))


def _found(exp: Experiment, stages: Sequence[Stage], number: int) -> Iterator[Why]:
    stage = stages[number]
    role = roles(stage)
    behind = [stack for stack in stage.path if role[stack] == "suffix"]
    if trunk_of(stage):
        yield Why("trunk", "Why can the output of the trunk be cached?", _trunk(exp, stage))
    if behind:
        yield Why("suffix", "Why can nothing of the suffix be cached?", _suffix(stage, behind))
    if stage.band != FULL_BAND:
        yield Why("band", "What does depth have to do with noise here?", _band(stages, number))
    made = [entry for entry in stage.new or () if entry.init != "random"]
    if made:
        yield Why("grow", "Where do the new stacks come from?", grown(stage, made))
    drawn = stage.pick is not None and stage.pick < len(stage.path)
    if drawn:
        yield Why("drawn", "Which stacks does a step run?", _drawn(stage))
    away = _away(exp, stages, number)
    if away:
        yield Why("alone", "What of the stacks that do not run?", _alone(stage, away))
    if not (trunk_of(stage) or behind or made or away or drawn):
        yield Why("whole", "What is frozen here?", _whole(exp, stages, number))


def _trunk(exp: Experiment, stage: Stage) -> str:
    frozen = listed(["the embedding", *runs(trunk_of(stage))])
    row = layout_of(exp, 1, 1, stage.seq_len).row_bytes
    return (
        f"No gradient reaches {frozen}, so backward needs nothing of them; and "
        "their weights do not move in this stage, so that the same tokens under the same masks "
        f"give the same vectors at any step. These {bytes_text(row)} per sample may be computed "
        "once, ahead of the step, and read from disk when it comes, and whenever it returns "
        f"(placement.trunk=cached). A step then costs what {_costly(stage)}, however deep "
        "the trunk is, and the trunk's weights need not be in memory."
    )


def _costly(stage: Stage) -> str:
    """What still runs where a trunk is cached, and that it costs."""
    if len(trunk_of(stage)) == len(stage.path):
        return "the head costs, all that trains here"
    return "the stacks behind the trunk cost"


def _suffix(stage: Stage, behind: Sequence[str]) -> str:
    these = named(behind)
    first = stage.path.index(behind[0])
    ahead = [stack for stack in stage.path[:first] if stack in (stage.active or ())]
    if not ahead and not stage.embedding:
        return (
            f"The adapters of {named([adapter.stack for adapter in stage.adapters or ()])} train: "
            "what a stack with one puts out moves with every step, though its own weights do not, "
            f"and the gradient of the loss must be carried back through {these} to reach it. So "
            "they run forward and backward each time. What freezing saves: gradients and "
            "optimizer state of all but the thin matrices, and the frozen blocks may be read from "
            "disk one by one (placement.trunk=streamed)."
        )
    mover = ahead[-1] if ahead else "the embedding"
    return (
        f"What goes into {behind[0]} comes out of {mover}, which moves with every step: the suffix "
        "never sees the same vectors twice. And its output alone would not do: to know how to "
        f"move {mover}, the gradient of the loss must be carried back through every block of "
        f"{these}, with the very activations of this step. So the suffix runs forward and "
        "backward each time. What freezing saves: gradients and optimizer state of its weights, "
        "and its blocks may be read from disk one by one (placement.trunk=streamed)."
    )


def _band(stages: Sequence[Stage], number: int) -> str:
    stage = stages[number]
    low, high = stage.band
    trained = ", ".join(stage.active or ()) or "what trains"
    said = (
        f"Only noise levels over {low:.0%} and up to {high:.0%} come here: that much of a sample "
        f"is masked. They run through {_way(stage.path)}, and {trained} learns from them alone."
    )
    if len({each.band for each in stages}) == 1:
        return said
    ways = "; ".join(
        f"up to {high:.0%} masked: {_way(path)}" for _, high, path in paths_so_far(stages)
    )
    return (
        f"{said} Each noise has its way: {ways}. So where a sample is in diffusion "
        "time decides which part of the rack it runs through: depth is time. A stack then needs no "
        "clock as an input, and since the bands cover (0, 1] without overlap, their losses add up "
        "to one bound on the likelihood."
    )


def _way(path: Sequence[str]) -> str:
    return " → ".join(path) if len(path) <= MOST else f"{path[0]} → … → {path[-1]}"


def _drawn(stage: Stage) -> str:
    """Of a stage whose steps run some of its stacks."""
    count, pick = len(stage.path), stage.pick
    first, last = stage.path[0], stage.path[-1]
    ends = f"{first}, {last} and {pick - 2} more" if pick and pick > 2 else f"{first} and {last}"
    which = "one of them, any" if pick == 1 else ends
    return (
        f"Not all: {pick} of {count}, drawn anew for each step: {which}. The residual stream "
        "passes the others by, and these get no gradient in that step. So each learns to be of use "
        "whatever runs beside it, and a step costs what "
        f"{'one stack costs' if pick == 1 else f'{pick} stacks cost'}. All {count} have gradients "
        "and optimizer state in some step, so none is frozen."
    )


def _away(exp: Experiment, stages: Sequence[Stage], number: int) -> list[str]:
    """The stacks that are in the rack by a stage, and that it does not run."""
    held = {entry.stack for stage in stages[: number + 1] for entry in stage.new or ()}
    return [s for s in stack_ids(exp.rack) if s in held - set(stages[number].path)]


def _alone(stage: Stage, away: Sequence[str]) -> str:
    """Of a stage that leaves out stacks that are there."""
    these, one = named(away), len(away) == 1
    still = f"{these} {'is' if one else 'are'} in the rack and {'does' if one else 'do'} not move"
    if not stage.path:
        return f"{still}: the embedding's vectors go straight to the head."
    return (
        f"{still}: a sample runs from the embedding through {_way(stage.path)} to the head, and "
        f"through nothing else. So a step costs what {len(stage.path)} of "
        f"{len(stage.path) + len(away)} stacks cost, in time and in memory for gradients and "
        "activations, and what runs here is not taught to work with what does not."
    )


def _whole(exp: Experiment, stages: Sequence[Stage], number: int) -> str:
    stage = stages[number]
    later = stages[number + 1] if number + 1 < len(stages) else None
    still = [end for end in ("embedding", "head") if not getattr(stage, end)]
    if still:
        return f"No stack: all that are there train. {_ends(still)}, as this curriculum says."
    if not stage.path:
        new = _added(later)
        return (
            "Nothing: the embedding's vectors go straight to the head, and both train. No stack is "
            f"there yet{f'; the next stage adds {new}' if new else ''}."
        )
    if later is None and number == 0 and stage.pick is None and exp.start is None:
        return (
            "Nothing: all stacks train together from the first step to the last, the control that "
            "every other curriculum is compared with. Gradients, optimizer state and activations "
            "of every block are in memory at once."
        )
    frozen = [s for s, kind in roles(later).items() if kind != "active"] if later else []
    frozen = [stack for stack in frozen if stack in stage.path]
    if not frozen:
        return f"Nothing: {_together(stage, number)}"
    new = _added(later)
    return (
        f"Nothing yet: this is ordinary training of {'a shallow rack' if new else 'the rack'}. "
        f"When the stage is over, {named(frozen)} will be frozen"
        f"{f' and the next stage adds {new}' if new else ''}."
    )


def _together(stage: Stage, number: int) -> str:
    """That all of a path trains, and what of it is new."""
    if len(stage.path) == 1:
        return f"{stage.path[0]} trains, the only stack that is there yet."
    said = "all stacks that are there train together, as in ordinary training."
    new = _added(stage) if number else ""
    return f"{said} New among them, and random at first: {new}." if new else said


def _ends(still: Sequence[str]) -> str:
    """Embedding, head or both, which do not train."""
    return f"The {' and the '.join(still)} {'stands' if len(still) == 1 else 'stand'} still"


def _added(stage: Stage | None) -> str:
    return named([entry.stack for entry in stage.new or ()]) if stage and stage.new else ""
