"""What the picture of a step is made of: a box for each part that a token passes, top to bottom.

Of a deep rack, stacks next to each other that stand alike share a box.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import stackwise as sw
from stackwise.objective import is_causal
from stackwise.stage import roles
from stackwise_widgets.views.markup import stacks_said

if TYPE_CHECKING:
    from stackwise import Experiment, Stage
    from stackwise.stepping import Phase

FEW = 6  # stacks of which each has a box of its own
STATES = {
    "given": "",
    "active": "trains",
    "trunk": "frozen: trunk",
    "suffix": "frozen, gradient crosses",
    "passed": "frozen, gradient passes",
    "absent": "not on this stage's path",
}


@dataclass(frozen=True)
class Box:
    """A part of the picture.

    Attributes:
        name: Of its parts together.
        parts: Those of the rack in it; of what is none, its phase's name.
        blocks: Names of their blocks; `embedding` and `head` are blocks of their own.
        state: A key of `STATES`.
    """

    name: str
    parts: tuple[str, ...]
    blocks: tuple[str, ...]
    state: str

    @property
    def of_rack(self) -> bool:
        """Whether it holds weights that are there."""
        return self.state not in ("given", "absent")


def boxes_of(exp: Experiment, stage: Stage) -> list[Box]:
    """The boxes of a stage, in the order in which a token meets them."""
    causal = is_causal(exp.objective)
    reached = stage.embedding or bool(stage.active)
    head = "active" if stage.head else "passed" if reached else "trunk"
    return [
        Box("tokens", ("batch",), (), "given"),
        Box("shift by one" if causal else "mask", ("mask",), (), "given"),
        _end("embedding", "active" if stage.embedding else "trunk"),
        *_stacks(exp, stage),
        _end("head", head),
        Box("loss", ("loss",), (), "given"),
    ]


def _end(name: str, state: str) -> Box:
    words = {"embedding": "embedding", "head": "final norm, head"}
    return Box(words[name], (name,), (name,), state)


def _stacks(exp: Experiment, stage: Stage) -> Iterator[Box]:
    role, ids = roles(stage), sw.stack_ids(exp.rack)
    beyond = [stack for stack in ids if stack not in role]
    # Those that are not on the path are told where the rack has them, if it has its order.
    order = list(ids) if [s for s in ids if s in role] == list(stage.path) else [*stage.path]
    order += [stack for stack in beyond if stack not in order]
    for state, group in groupby(order, key=lambda stack: role.get(stack, "absent")):
        stacks = tuple(group)
        each = len(stage.path) <= FEW and state != "absent"
        for some in [(stack,) for stack in stacks] if each else [stacks]:
            count = range(exp.rack.blocks_per_stack)
            blocks = tuple(f"{s}.{i}" for s in some for i in count) if state != "absent" else ()
            yield Box(stacks_said(some, ids), some, blocks, state)


def output_of(box: Box, phase: Phase | None) -> float | None:
    """Root mean square of what a box puts out."""
    return None if phase is None or not box.blocks else phase.activations.get(box.blocks[-1])


def arriving_at(box: Box, phase: Phase | None) -> float | None:
    """Norm of the gradient that arrives at what a box puts out."""
    return None if phase is None or not box.blocks else phase.flow.get(box.blocks[-1])


def gradient_of(box: Box, phase: Phase | None) -> float | None:
    """Norm of the gradient of a box's weights; None where there is none, or none yet."""
    return None if phase is None else together(phase.grad_norms, box.blocks)


def moved_by(box: Box, phase: Phase | None) -> float | None:
    """How far a box's weights moved, over their norm; the largest of its blocks."""
    found = [] if phase is None else [phase.relative.get(name) for name in box.blocks]
    known = [value for value in found if value is not None]
    return max(known) if known else None


def together(norms: Mapping[str, float | None], names: Sequence[str]) -> float | None:
    """The norm of several that have one."""
    found = [value for name in names if (value := norms.get(name)) is not None]
    return math.sqrt(sum(value * value for value in found)) if found else None


def is_crossed(box: Box) -> bool:
    """Whether gradient arrives at what a box puts out."""
    return box.state in ("active", "suffix", "passed")
