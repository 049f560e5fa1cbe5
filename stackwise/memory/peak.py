"""The highest moment of a stage's training steps, by arithmetic: how many bytes, and when.

A stage holds weights, moments and averages throughout. On top of them come and go what a
micro-batch keeps for backward, gradients, and what the work in hand takes. So its peak is not the
sum of the categories in `bytes.py` but the largest of these moments:

    forward of a trunk's block      nothing is kept; one dequantised matrix
    head                            everything is kept, and logits
    backward of each block          what the blocks below keep, gradients of those above
    optimizer step                  all gradients, nothing kept, a slice

With micro-batches the gradients of those before are there all the time; with checkpointing a block
keeps its input and is worked out again. Where tensors move in backward there is a buffer all the
time, and each move is a moment of its own, with a slice. What a block holds at its moments stands
in `model/block.py`, what attention does beside each kind. `trace.py` judges all but the device's
own part, which is in `devices.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, NamedTuple

from stackwise.adapters import Adapter
from stackwise.by_stage import as_read
from stackwise.memory.devices import overhead
from stackwise.memory.lowrank import adapter_numbers, adapters_of, kept_beside, leftmost, not_kept
from stackwise.memory.parts import FLOAT, Bytes, Micro, micros_of
from stackwise.memory.stored import paged_of
from stackwise.model.block import block_backward, block_forward
from stackwise.model.shape import cycle, stack_ids
from stackwise.model.working import Moment
from stackwise.stage import Role, Stage, as_run, parts_trained, roles

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement


@dataclass(frozen=True)
class Peak:
    """Bytes on the computing device at the highest moment of a stage.

    Attributes:
        at: Which moment it is, as in `backward of s3.0`.
        weights: As they train and as they are frozen.
        gradients: Those that are there by then.
        optimizer: Moments, and masters' lower halves; what a card pages is counted on the host.
        average: Moving averages.
        activations: What is kept for backward.
        temporaries: What the work in hand takes: gradients of activations, logits, one dequantised
            matrix, a slice of an optimizer's.
        slots: Of lent blocks.
        other: Batches, and a buffer for small dequantised matrices.
        device: What device, libraries and allocator take beside all that.
    """

    at: str
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    activations: int = 0
    temporaries: int = 0
    slots: int = 0
    other: int = 0
    device: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        lasting = self.weights + self.optimizer + self.average + self.slots + self.other
        return lasting + self.gradients + self.activations + self.temporaries + self.device


def stage_peak(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    parts: Mapping[str, Bytes],
    *,
    untied: bool = False,
    card: bool = False,
) -> Peak:
    """The highest moment of a stage.

    Args:
        exp: The experiment.
        placement: Micro-batch, checkpointing, trunk.
        stage: The stage.
        parts: Of `stage_bytes`.
        untied: Whether a tied head has a table of its own by then.
        card: Whether it computes on a card.
    """
    stage, own = as_run(stage), as_read(exp, stage)
    micros = micros_of(own, placement, stage, untied=untied, card=card)
    whole = Bytes()
    for name, part in parts.items():
        whole += part if name != "slots" else Bytes()
    slots = parts["slots"].weights if "slots" in parts else 0
    paged = paged_of(exp, stage, untied=untied) if card else 0
    base = Peak(
        "",
        weights=whole.weights,
        optimizer=whole.optimizer - paged,
        average=whole.average,
        slots=slots,
    )
    found = (
        moment
        for micro in micros
        for moment in moments(own, stage, parts, micro, replace(base, other=micro.other))
    )
    best = max(found, key=lambda peak: peak.total)
    return replace(best, device=overhead(exp, placement, stage, card=card))


class Lowrank(NamedTuple):
    """What an adapter adds to the moments of a block.

    Attributes:
        kept: Between forward and backward.
        saved: While the block is worked through, beyond what one that is worked through `like` it
            keeps.
        like: The role that its backward is like: of an active block, where the feed-forward keeps
            its inputs for A, or of a suffix.
    """

    kept: int = 0
    saved: int = 0
    like: Role | None = None


def lowrank_of(exp: Experiment, micro: Micro, adapter: Adapter) -> Lowrank:
    """What an adapter adds to each block of its stack."""
    each = 2 if micro.passing.low else FLOAT
    beside = micro.tokens * kept_beside(exp, adapter).bytes(each)
    numbers = adapter_numbers(exp, adapter) // exp.rack.blocks_per_stack
    whole = beside + micro.passing.low * 2 * numbers  # autocast's copies of A and B
    like: Role = "suffix" if adapter.targets == "attention" else "active"
    saved = whole - micro.saved[like] + micro.saved["suffix"]
    return Lowrank(0 if micro.checkpointing else whole, saved, like)


def spared(exp: Experiment, micro: Micro, stage: Stage) -> int:
    """What the leftmost block does not keep, where no gradient reaches its input."""
    stack = leftmost(stage)
    if stack is None or micro.checkpointing:
        return 0
    adapter = adapters_of(stage)[stack]
    return micro.tokens * not_kept(exp, adapter).bytes(2 if micro.passing.low else FLOAT)


def moments(
    exp: Experiment, stage: Stage, parts: Mapping[str, Bytes], micro: Micro, base: Peak
) -> Iterator[Peak]:
    """Every moment that may be the highest, in the order of a step."""
    blocks, rest = path_of(exp, stage), []
    held = micro.gradients if micro.accumulates else micro.buffer
    backs: dict[tuple[int, bool], tuple[Moment, ...]] = {}
    carried = adapters_of(stage)
    kept = -spared(exp, micro, stage)
    again = cycle(exp.rack)
    tell = telling(blocks, lcm(again, exp.rack.blocks_per_stack))
    tell |= {number for name, number, _ in blocks if name.partition(".")[0] in carried}
    beside = {stack: lowrank_of(exp, micro, adapter) for stack, adapter in carried.items()}
    for name, number, role in blocks:
        if role != "trunk":
            rest.append((name, number, role))
            kept += micro.kept[role] + beside.get(name.partition(".")[0], Lowrank()).kept
        if number in tell and (role == "trunk" or micro.checkpointing):
            trains = role == "active"
            moment = block_forward(exp.rack, exp.attention, number, micro.passing, trains)
            work = micro.bytes_of(moment) + micro.weight(role, forward=True)
            yield replace(
                base,
                at=f"forward of {name}",
                gradients=held,
                activations=kept,
                temporaries=work,
            )
    made = (held or parts["head"].gradients) + micro.waiting
    for temporaries, gradients in micro.head:
        yield replace(
            base,
            at="head",
            gradients=held + gradients,
            activations=kept,
            temporaries=temporaries,
        )
    for name, number, role in reversed(rest):
        here = replace(base, at=f"backward of {name}")
        stack = name.partition(".")[0]
        extra = beside.get(stack, Lowrank())
        kept -= micro.kept[role] + extra.kept
        below = kept + (micro.kept[role] if micro.checkpointing else 0) + extra.saved
        trains, worked = role == "active", extra.like or role
        like = number % again, worked == "active"
        if like not in backs:
            backs[like] = block_backward(exp.rack, exp.attention, like[0], micro.passing, like[1])
        for moment in backs[like] if number in tell else ():
            if micro.beside:
                yield at_work(here, micro, (role, worked), below, moment, made)
                if trains and moment.hand:  # the product done, its tensor moves
                    gradients = made + micro.beside["blocks"]
                    moving = at_work(here, micro, (role, worked), below, moment.made_up, gradients)
                    yield replace(moving, temporaries=moving.temporaries + micro.slice)
                continue
            new = trains and not held
            gradients = made + new * moment.made * micro.weight_bytes
            found = at_work(here, micro, (role, worked), below, moment, gradients)
            hand = trains * micro.hand(moment.hand)
            yield replace(found, temporaries=found.temporaries + hand)
        if (trains or stack in carried) and not held:
            made += parts[stack].gradients // exp.rack.blocks_per_stack
    if stage.embedding:
        yield replace(
            base,
            at="backward of embedding",
            gradients=made + parts["embedding"].gradients + micro.beside.get("embedding", 0),
            temporaries=micro.table,
        )
    if parts_trained(stage):
        yield replace(base, at="optimizer step", gradients=micro.gradients, temporaries=micro.slice)


def telling(blocks: Sequence[tuple[str, int, Role]], again: int) -> set[int]:
    """The blocks whose moments can be the highest, by number.

    In a row of blocks of one role what is there rises or falls by as much from each to the next of
    its kind, which is `again` blocks on. So the highest is among the first and last of the row.
    """
    rows: list[list[int]] = []
    last: tuple[int, Role] | None = None
    for _, number, role in blocks:
        if last != (number - 1, role):
            rows.append([])
        rows[-1].append(number)
        last = number, role
    return {number for row in rows for number in row[:again] + row[-again:]}


def at_work(
    here: Peak,
    micro: Micro,
    roles_of: tuple[Role, Role],
    below: int,
    moment: Moment,
    gradients: int,
) -> Peak:
    """A moment of a block's backward, above what the blocks below it keep.

    `roles_of`: what its stack is, and what it is worked through like.
    """
    role, worked = roles_of
    floats = micro.bytes_of(moment)
    keeps = min(micro.saved[worked], floats)
    return replace(
        here,
        gradients=gradients,
        activations=below + keeps + micro.copied(role, moment),
        temporaries=floats - keeps + micro.weight(role),
    )


def path_of(exp: Experiment, stage: Stage) -> list[tuple[str, int, Role]]:
    """The blocks of a stage in their order: name, number in the whole rack, role."""
    each, place = exp.rack.blocks_per_stack, {s: i for i, s in enumerate(stack_ids(exp.rack))}
    return [
        (f"{stack}.{i}", place[stack] * each + i, role)
        for stack, role in roles(stage).items()
        for i in range(each)
    ]
