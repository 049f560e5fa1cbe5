"""Seconds of a whole stage: its steps, and all that a run does around them.

    starting      random weights of what is new, or reading them from the model of `start`
    filling       where the trunk is cached, its outputs for training and looks, and the disk
    steps         as many as its tokens make
    looks         held-out windows at every depth or the last, evenly spread, and at the stage's end
    freezing      packing what is done, masters, and the loss before and after
    checkpoints   hashed and written: every `checkpoint_seconds`, and at the stage's border

The last stage has the final score in its `looks`, where `eval.final` says of how many windows, and
`best/` in its `checkpoints`. Left out: the score of all held-out text where it does not, opening
the data, verifying hashes when a run is resumed, compiling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from stackwise.adapters import SUFFIX
from stackwise.budget import steps_of
from stackwise.by_stage import LISTS, as_read
from stackwise.completion import packing
from stackwise.data.heldout import rows_at_once
from stackwise.memory.counted import micro_tokens
from stackwise.memory.disk import ENDLESS, frozen_bytes, looks_at_ends, rows_of
from stackwise.memory.flops import counted_frac, head_flops_per_position, vocab_size
from stackwise.memory.stored import (
    block_linears,
    part_tensors,
    state_of,
    trained_bytes,
    trained_tensors,
)
from stackwise.planner.curve import seconds_for
from stackwise.planner.hardware import Hardware
from stackwise.planner.passes import Pass, head_sides
from stackwise.planner.seconds import StepSeconds, beyond, blocks_of, read_seconds, step_seconds
from stackwise.probing import look_count
from stackwise.stage import Stage, keeps_state, parts_trained, roles, trunk_of, untied_from
from stackwise.trunk.border import border_of

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

BORDER_BYTES = {"float32": 4, "bfloat16": 2, "fp8": 1}


@dataclass(frozen=True)
class StageSeconds:
    """Seconds of a stage, by part; and of one of its steps, by part of it."""

    starting: float
    filling: float
    steps: float
    looks: float
    freezing: float
    checkpoints: float
    step: StepSeconds

    @property
    def total(self) -> float:
        """Of all parts."""
        return sum(value for key, value in asdict(self).items() if key != "step")


def stage_seconds(
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    number: int,
    hardware: Hardware,
    *,
    epoch_samples: int = ENDLESS,
    from_disk: bool = False,
) -> StageSeconds:
    """What stage `number` of a run takes.

    Args:
        exp: The experiment.
        placement: How it is carried out.
        made: All its stages: what freezes and what returns is seen from those around.
        number: Which one.
        hardware: The machine.
        epoch_samples: Samples of the training text, which bound what a cache holds.
        from_disk: Whether lent blocks are more than the machine keeps in memory.

    Raises:
        ExperimentError: If the vocabulary is not known.
    """
    stage, apart = made[number], untied_from(exp.rack, made)
    untied = apart is not None and number >= apart
    step = step_seconds(
        as_read(exp, stage), placement, stage, hardware, untied=untied, from_disk=from_disk
    )
    count = steps_of(exp, stage)
    on = StageOn(exp, placement, stage, hardware, from_disk)
    looks = look_count(exp, made, number) * look_seconds(on)
    if number == len(made) - 1:
        looks += final_seconds(on)
    steps = count * step.total
    saved = int((steps + looks) // placement.checkpoint_seconds)
    return StageSeconds(
        starting=start_seconds(exp, made, number, hardware),
        filling=fill_seconds(on, made, number, epoch_samples),
        steps=steps,
        looks=looks,
        freezing=freeze_seconds(on, made, number),
        checkpoints=checkpoint_seconds(
            exp, made, number, hardware, inside=max(0, min(saved, count - 1))
        ),
        step=step,
    )


@dataclass(frozen=True)
class StageOn:
    """A stage on a machine, and where its lent blocks are read.

    Attributes:
        exp: The experiment.
        placement: How it is carried out.
        stage: The stage.
        hardware: The machine.
        from_disk: Whether lent blocks are more than the machine keeps in memory.
    """

    exp: Experiment
    placement: Placement
    stage: Stage
    hardware: Hardware
    from_disk: bool

    def forward(self, windows: int, *, heads: int, cached: bool = False) -> float:
        """Seconds of reading windows through the path, with so many heads on the way."""
        exp, role = self.exp, roles(self.stage)
        whole = self.stage.model_copy(update={"seq_len": None})  # as held-out samples are
        if not windows:
            return 0.0
        rows = min(rows_at_once(exp), windows)
        one = Pass(exp, self.placement, self.hardware, rows * exp.data.seq_len)
        left_out = {stack for stack in role if cached and role[stack] == "trunk"}
        kinds = Counter(
            (block, role[stack] != "active")
            for stack, block in blocks_of(exp, self.stage)
            if stack not in left_out
        )
        counted = one.tokens * counted_frac(exp, whole)
        head = one.products(head_flops_per_position(exp) * counted, head_sides(exp), counted)
        head += seconds_for(self.hardware.loss[one.dtype], counted * vocab_size(exp)) / 2
        busy = heads * head + sum(count * one.ahead(*kind) for kind, count in kinds.items())
        lent = sum(role[stack] != "active" for stack in set(role) - left_out)
        return windows / rows * (busy + self.reading(lent, busy))

    def reading(self, stacks: int, busy: float) -> float:
        """Seconds of reading so many lent stacks once, beyond the computing meanwhile."""
        read = read_seconds(
            self.exp, self.placement, self.hardware, stacks, from_disk=self.from_disk
        )
        return beyond(read, busy, self.hardware)


def look_seconds(on: StageOn) -> float:
    """Seconds of one look: the path once, and the head at every depth or at its end alone.

    At its end alone the outputs of a cached trunk are read.
    """
    return depth_seconds(on) if on.exp.eval.depths == "all" else end_seconds(on)


def depth_seconds(on: StageOn) -> float:
    """Seconds of the loss at every depth of a path."""
    depths = 1 + len(on.stage.path) * on.exp.rack.blocks_per_stack
    return on.forward(on.exp.eval.windows, heads=depths)


def end_seconds(on: StageOn) -> float:
    """Seconds of the loss at the end of a path."""
    cached = on.placement.trunk == "cached"
    return on.forward(on.exp.eval.windows, heads=1, cached=cached)


def final_seconds(on: StageOn) -> float:
    """Seconds of the score on `eval.final` held-out windows, and of the loss by depth."""
    score = on.forward((on.exp.eval.final or 0) * on.exp.eval.draws, heads=1)
    return score + depth_seconds(on)


def start_seconds(exp: Experiment, made: Sequence[Stage], number: int, hardware: Hardware) -> float:
    """Seconds of giving new parts their weights."""
    parts = [entry.stack for entry in made[number].new or ()]
    parts += ["embedding", "head"] if number == 0 else []
    tensors = [tensor for part in parts for tensor in part_tensors(exp, part)]
    if exp.start is not None:
        return trained_bytes(exp, tuple(tensors)) / hardware.disk_read
    return sum(count for count, axes in tensors if axes >= 2) / hardware.start


def fill_seconds(on: StageOn, made: Sequence[Stage], number: int, epoch_samples: int) -> float:
    """Seconds of writing what the trunk gives for all that a stage trains on and looks at.

    From the cache of the stage before, whose rows pass through the one stack that was added, or
    from the tokens.
    """
    exp, placement, stage = on.exp, on.placement, on.stage
    trunk = trunk_of(stage)
    if placement.trunk != "cached" or not trunk:
        return 0.0
    follows = number > 0 and bool(trunk[:-1]) and trunk_of(made[number - 1]) == trunk[:-1]
    same_noise = follows and stage.band == made[number - 1].band
    length, trained = exp.data.seq_len, replace(on, exp=as_read(exp, stage))
    tokens = rows_of(exp, stage, epoch_samples) * trained.exp.data.seq_len
    older = follows and same_rows(exp, made, number)
    kinds = [(trained, tokens, micro_tokens(trained.exp, placement), older)]
    if looks_at_ends(exp):
        kinds.append((on, exp.eval.windows * length, rows_at_once(exp) * length, same_noise))
    return sum(filling_seconds(*kind) for kind in kinds)


def filling_seconds(on: StageOn, tokens: int, micro: int, older: bool) -> float:
    """Seconds of running tokens through a trunk, or its last stack, and writing the outputs."""
    exp, hardware, trunk = on.exp, on.hardware, trunk_of(on.stage)
    through = set(trunk[-1:] if older else trunk)
    one = Pass(exp, on.placement, hardware, micro)
    kinds = Counter(block for stack, block in blocks_of(exp, on.stage) if stack in through)
    busy = sum(count * one.ahead(block, True) for block, count in kinds.items())
    size = tokens * exp.rack.d_model * BORDER_BYTES[border_of(exp.precision)]
    written = size * (1 / hardware.disk_write + 1 / hardware.hash_rate)
    read = size / hardware.page_read if older else 0.0
    return tokens / micro * (busy + on.reading(len(through), busy)) + written + read


def same_rows(exp: Experiment, made: Sequence[Stage], number: int) -> bool:
    """Whether a stage reads the samples, under the masks, that the one before it read."""
    stage, before = made[number], made[number - 1]
    enough = (before.tokens or 0) >= (stage.tokens or 0)
    same = all(getattr(stage, key) == getattr(before, key) for key in ("band", *LISTS))
    return exp.data.restart and enough and same


def freeze_seconds(on: StageOn, made: Sequence[Stage], number: int) -> float:
    """Seconds of packing the stacks that are done, and of the loss before and after."""
    exp, stage = on.exp, on.stage
    form = packing(exp.precision)
    following = made[number + 1] if number + 1 < len(made) else None
    done = set(stage.active or ()) - set(following.active or ()) if following else set()
    if form is None or not done:
        return 0.0
    matrices = sum(o * i for o, i in block_linears(exp.rack, exp.attention))
    packed = len(done) * exp.rack.blocks_per_stack * matrices / on.hardware.quantise[form]
    return packed + 2 * end_seconds(on)


def checkpoint_seconds(
    exp: Experiment,
    made: Sequence[Stage],
    number: int,
    hardware: Hardware,
    *,
    inside: int,
) -> float:
    """Seconds of the checkpoints of a stage: some inside it, and one at its border."""
    apart = untied_from(exp.rack, made)
    untied = apart is not None and number >= apart
    following = made[number + 1] if number + 1 < len(made) else None
    goes_on = parts_trained(following) if following else set()
    within = border = best = 0
    for part in parts_trained(made[number]):
        moved = trained_tensors(exp, part, untied=untied, stage=made[number])
        beside = part.endswith(SUFFIX)
        tensors = moved if beside else part_tensors(exp, part, untied=untied)
        weights = trained_bytes(exp, tensors)
        moments = state_of(exp, part, untied=untied, stage=made[number])
        average = 4 * sum(count for count, _ in moved) if exp.optim.ema is not None else 0
        within += weights + moments + average
        border += (
            weights
            if part in goes_on or following is None or beside
            else frozen_bytes(exp, part, tensors)
        )
        border += moments if keeps_state(made, number, part) else 0
        best += weights if following is None else 0
    looks = look_count(exp, made, number)
    written = inside * within + border + looks * best
    return written * (1 / hardware.disk_write + 1 / hardware.hash_rate)
