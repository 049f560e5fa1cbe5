"""Why a stage is carried out as it is: what layer-wise training turns on, said of this stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise.by_stage import as_read
from stackwise.report import bytes_text
from stackwise.stage import FULL_BAND, Stage, paths_so_far, roles, trunk_of
from stackwise.stepping.words import listed, named, runs

if TYPE_CHECKING:
    from stackwise.config import Experiment

FLOAT_BYTES = 4
MOST = 6  # stacks of a path that are named


@dataclass(frozen=True)
class Why:
    """A question that a stage raises, and the answer.

    Attributes:
        about: `trunk`, `suffix`, `band`, `grow` or `whole`.
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
    copies = [entry for entry in stage.new or () if entry.init == "copy"]
    if copies:
        made = ", ".join(f"{entry.stack} is a copy of {entry.source}" for entry in copies)
        yield Why("grow", "Where do the new stacks come from?", _grown(stage, made))
    if not (trunk_of(stage) or behind or copies):
        yield Why("whole", "What is frozen here?", _whole(stages, number))


def _trunk(exp: Experiment, stage: Stage) -> str:
    frozen = listed(["the embedding", *runs(trunk_of(stage))])
    row = as_read(exp, stage).data.seq_len * exp.rack.d_model * FLOAT_BYTES
    return (
        f"No gradient reaches {frozen}, so backward needs nothing of them; and "
        "their weights do not move in this stage, so that the same tokens under the same masks "
        f"give the same vectors at any step. These {bytes_text(row)} per sample may be computed "
        "once, ahead of the step, and read from disk when it comes, and whenever it returns "
        "(placement.trunk=cached). A step then costs what the stacks that train cost, however deep "
        "the trunk is, and the trunk's weights need not be in memory."
    )


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
        f"{said} Other noise belongs to other stacks: {ways}. So where a sample is in diffusion "
        "time decides which part of the rack it runs through: depth is time. A stack then needs no "
        "clock as an input, and since the bands cover (0, 1] without overlap, their losses add up "
        "to one bound on the likelihood."
    )


def _way(path: Sequence[str]) -> str:
    return " → ".join(path) if len(path) <= MOST else f"{path[0]} → … → {path[-1]}"


def _grown(stage: Stage, made: str) -> str:
    return (
        f"{made}. A copy of a trained stack is a better start than random weights, as neighbouring "
        "layers do similar work. All stacks of the path train, so the gradient goes all the way "
        "down, and the whole rack moves together: nothing can be cached, but the early steps ran "
        "through a shallow rack and cost less."
    )


def _whole(stages: Sequence[Stage], number: int) -> str:
    if len(stages) == 1:
        return (
            "Nothing: all stacks train together from the first step to the last, the control that "
            "every other curriculum is compared with. Gradients, optimizer state and activations "
            "of every block are in memory at once."
        )
    later = stages[number + 1] if number + 1 < len(stages) else None
    frozen = [s for s, kind in roles(later).items() if kind != "active"] if later else []
    if not frozen:
        return "Nothing: all stacks that are there train together, as in ordinary training."
    return (
        "Nothing yet: this is ordinary training of a shallow rack. When the stage is over, "
        f"{', '.join(frozen)} will be frozen and the next stage adds {_added(later)}."
    )


def _added(stage: Stage | None) -> str:
    names = [entry.stack for entry in stage.new or ()] if stage is not None else []
    return ", ".join(names) or "nothing"
