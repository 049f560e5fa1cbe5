"""Seconds of a training step of a stage, by part, in closed form.

FLOPs are the ledger's (`memory/flops.py`); what a block does beside products and attention goes
with the numbers that autograd keeps of it (`block_saved`), bytes are those of `memory/`. Each is
divided by a rate of `hardware.py`. Per micro-batch of N tokens:

    trunk      forward products + attention + around, dequantising; or what is read of a cache
    forward    the same of the blocks that gradient crosses, weights cast where dtypes differ
    backward   the ledger's rest of their FLOPs + around, suffixes dequantised again
    recompute  with checkpointing, `forward` once more
    head       its FLOPs at the positions that count, the logits' cross-entropy
    embedding  rows looked up and their gradient
    fresh      on a CPU, pages that the system clears before a large gradient is written

and once per step norms, clipping, the optimizer and the moving average. Blocks that are lent are
read ahead meanwhile: `streaming` is what reading takes beyond that. Calls of operators are a part
of every curve that was measured; on a card, where they go on beside the work, `launching` is what
they take beyond it.

Left out: making batches and waiting for them (under 1 % by `benchmarks/step.py`), compiling and
what it gains, and a machine that other programs use. Attention kinds without softmax are taken at
softmax's rate. What a stage takes beside its steps is in `stage_seconds.py`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from stackwise.completion import packing
from stackwise.memory.counted import micro_samples, micro_tokens
from stackwise.memory.flops import (
    block_index,
    counted_frac,
    head_flops_per_position,
    vocab_size,
)
from stackwise.memory.lowrank import layers, leftmost
from stackwise.memory.stored import lent_bytes
from stackwise.model.shape import cycle
from stackwise.planner.curve import seconds_for
from stackwise.planner.hardware import Hardware
from stackwise.planner.moving import (
    accumulate_seconds,
    average_seconds,
    fresh_seconds,
    optimizer_seconds,
    trained,
)
from stackwise.planner.passes import Pass, head_sides
from stackwise.preserving import distils, path_read
from stackwise.stage import Role, Stage, as_run, roles

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

CALLS = {"forward": 34, "backward": 53}  # operators of a block under autocast: tests/unit/planner
ADAPTER_CALLS = {"forward": 6, "backward": 8}  # of each layer that an adapter is on
TENSOR_CALLS = 12  # of norm, clip, optimizer and average for each tensor that trains


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of one optimizer step, by part."""

    trunk: float = 0.0
    embedding: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    recompute: float = 0.0
    head: float = 0.0
    fresh: float = 0.0
    accumulate: float = 0.0
    optimizer: float = 0.0
    average: float = 0.0
    streaming: float = 0.0
    launching: float = 0.0
    held: float = 0.0

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())

    def __add__(self, other: StepSeconds) -> StepSeconds:
        names = [each.name for each in fields(self)]
        return StepSeconds(**{k: getattr(self, k) + getattr(other, k) for k in names})


def step_seconds(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    hardware: Hardware,
    *,
    untied: bool = False,
    from_disk: bool = False,
) -> StepSeconds:
    """What one optimizer step of a stage takes.

    Args:
        exp: The experiment.
        placement: Micro-batch, checkpointing, and where the trunk comes from.
        stage: The stage.
        hardware: The machine.
        untied: Whether a tied head has a table of its own by then.
        from_disk: Whether blocks that are lent from disk are more than the machine keeps
            in memory, so that every step reads them from the disk.

    Raises:
        ExperimentError: If the vocabulary is not known.
    """
    pass_, whole_stage = Pass(exp, placement, hardware, micro_tokens(exp, placement)), stage
    stage = as_run(stage)
    micros = exp.optim.batch / micro_samples(exp, placement)  # the last one may be smaller
    work = micro_seconds(pass_, stage, untied)
    whole = StepSeconds(**{key: micros * value for key, value in asdict(work).items()})
    whole += StepSeconds(
        fresh=math.ceil(micros) * fresh_seconds(exp, stage, hardware, untied),
        accumulate=(math.ceil(micros) - 1) * accumulate_seconds(exp, stage, hardware, untied),
        optimizer=optimizer_seconds(exp, stage, hardware, untied),
        average=average_seconds(exp, whole_stage, hardware, untied),
    )
    passes = math.ceil(micros)
    read = passes * lent_seconds(exp, placement, stage, hardware, from_disk=from_disk)
    tensors = len(trained(exp, stage, untied))
    calls = passes * block_calls(exp, placement, stage) + TENSOR_CALLS * tensors
    launching = calls * hardware.call_seconds if hardware.calls_overlap else 0.0
    busy = whole.total
    return whole + StepSeconds(
        streaming=beyond(read, busy, hardware), launching=max(0.0, launching - max(busy, read))
    )


def block_calls(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """Calls of operators in the blocks of one micro-batch."""
    crossed = CALLS["forward"] * (1 + placement.checkpointing) + CALLS["backward"]
    ahead = 0 if is_cached(placement, stage) else CALLS["forward"]
    each = {"trunk": ahead, "active": crossed, "suffix": crossed}
    blocks = sum(each[role] for role in roles(stage).values())
    beside = sum(len(layers(exp, adapter)) for adapter in stage.adapters or ())
    again = ADAPTER_CALLS["forward"] * (1 + placement.checkpointing) + ADAPTER_CALLS["backward"]
    return exp.rack.blocks_per_stack * (blocks + again * beside)


def is_cached(placement: Placement, stage: Stage) -> bool:
    """Whether training reads what the trunk gave, and does not run it."""
    return placement.trunk == "cached" and not stage.embedding


def beyond(read: float, busy: float, hardware: Hardware) -> float:
    """What reading ahead takes beyond computing: on a CPU it has one of its threads meanwhile."""
    if hardware.kind == "cuda":
        return max(0.0, read - busy)
    share = read / hardware.threads if hardware.threads > 1 else read
    return max(share, read - busy)


def micro_seconds(pass_: Pass, stage: Stage, untied: bool) -> StepSeconds:
    """What one micro-batch takes, forward and backward."""
    exp, placement = pass_.exp, pass_.placement
    role = roles(stage)
    first = bool(stage.active) and not stage.embedding and leftmost(stage) is None
    cached = is_cached(placement, stage) and "trunk" in role.values()
    trunk = forward = backward = recompute = 0.0
    for (block, part, leads), count in kinds_of(exp, stage, first).items():
        ahead, back = (count * each for each in pass_.block(block, part, leads))
        if part == "trunk":
            trunk += 0.0 if cached else ahead
            continue
        forward, backward = forward + ahead, backward + back
        recompute += ahead if placement.checkpointing else 0.0
    for adapter in stage.adapters or ():
        ahead, back = pass_.beside(adapter)
        forward, backward = forward + ahead, backward + back
        recompute += ahead if placement.checkpointing else 0.0
    if cached:
        trunk = seconds_for(pass_.hardware.passing["add"], pass_.rows * exp.rack.d_model)
    return StepSeconds(
        trunk=trunk,
        embedding=0.0 if cached else pass_.embedding(stage),
        forward=forward,
        backward=backward,
        recompute=recompute,
        head=pass_.head(stage),
        held=held_seconds(pass_, stage),
    )


def held_seconds(pass_: Pass, stage: Stage) -> float:
    """What the rack before the stage takes to predict, where predictions are distilled from it."""
    if not distils(stage):
        return 0.0
    exp, read = pass_.exp, path_read(stage)
    kinds = Counter(block for stack, block in blocks_of(exp, stage) if stack in read)
    counted = pass_.tokens * counted_frac(exp, stage)
    flops = head_flops_per_position(exp) * counted
    head = pass_.products(flops, head_sides(exp), counted)
    head += 2 * seconds_for(pass_.hardware.loss[pass_.dtype], counted * vocab_size(exp))
    beside = (each for each in stage.adapters or () if each.stack in read)
    head += sum(pass_.beside(adapter)[0] for adapter in beside)
    return head + sum(
        count * pass_.block(block, "trunk", False)[0] for block, count in kinds.items()
    )


def kinds_of(exp: Experiment, stage: Stage, first: bool) -> Counter[tuple[int, Role, bool]]:
    """The blocks of a stage's path by what they cost alike: which one, its role, if it leads.

    Args:
        exp: The experiment.
        stage: The stage.
        first: Whether nothing before the first active block needs a gradient: so that it leads.
    """
    role, found = roles(stage), Counter[tuple[int, Role, bool]]()
    for stack, block in blocks_of(exp, stage):
        leads = first and role[stack] == "active"
        first = first and not leads
        found[block, role[stack], leads] += 1
    return found


def blocks_of(exp: Experiment, stage: Stage) -> Iterator[tuple[str, int]]:
    """The blocks of a stage's path: their stack, and a block that is like each one."""
    again = cycle(exp.rack)
    for stack in stage.path:
        for block in block_index(exp, stack):
            yield stack, block % again


def lent_seconds(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    hardware: Hardware,
    *,
    from_disk: bool = False,
) -> float:
    """Seconds of bringing in the blocks that are lent, for one micro-batch that trains.

    A trunk comes by once, unless its outputs are cached; a suffix in forward and, in reverse, in
    backward, where it is recomputed a third time.
    """
    ahead = 0 if is_cached(placement, stage) else 1
    times = {"trunk": ahead, "suffix": 2 + placement.checkpointing, "active": 0}
    stacks = sum(times[role] for role in roles(stage).values())
    return read_seconds(exp, placement, hardware, stacks, from_disk=from_disk)


def read_seconds(
    exp: Experiment,
    placement: Placement,
    hardware: Hardware,
    stacks: int,
    *,
    from_disk: bool = False,
) -> float:
    """Seconds of bringing in so many stacks; from disk a file may be in memory already."""
    size = stacks * exp.rack.blocks_per_stack * lent_bytes(exp, packing(exp.precision))
    if placement.trunk == "recompute" or not size:
        return 0.0
    if placement.stream_from == "host":
        return size / (hardware.link_rate or hardware.memory_rate / 2)
    rate = hardware.disk_read if from_disk else hardware.page_read
    return size / min(rate, hardware.link_rate or rate)
