"""What a run takes on disk, by arithmetic: its checkpoints, and the outputs of its trunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackwise.completion import packing
from stackwise.memory.stored import part_tensors, stack_bytes, trained_bytes
from stackwise.stage import Stage, parts_trained, trunk_of, untied_from
from stackwise.training.optim import state_bytes
from stackwise.trunk.border import border_of
from stackwise.trunk.room import bytes_needed
from stackwise.trunk.shards import Layout

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement


def layout_of(exp: Experiment, rows: int) -> Layout:
    """How the cached outputs of an experiment's trunks lie: whole batches in a shard."""
    size, border = exp.data.seq_len, border_of(exp.precision)
    return Layout(rows, size, exp.rack.d_model, border, group=exp.optim.batch)


def cache_bytes(
    exp: Experiment, placement: Placement, made: Sequence[Stage], epoch_samples: int
) -> int:
    """The most that the caches of a run take at a time: a stage's, and the one it is made from."""
    if placement.trunk != "cached":
        return 0
    taken = []
    for stage in made:
        rows = (stage.tokens or 0) // exp.data.seq_len
        if exp.data.distinct_epochs is not None:
            rows = min(rows, exp.data.distinct_epochs * epoch_samples)
        taken.append(bytes_needed(layout_of(exp, rows)) if trunk_of(stage) else 0)
    return max(sum(pair) for pair in zip([0, *taken], [*taken, 0], strict=True))


def checkpoint_bytes(exp: Experiment, made: Sequence[Stage]) -> int:
    """The most that a run's checkpoints take at a time: while one takes the place of the last.

    Every part that is there, the states of those that train, and, while they are written, what
    changes a second time; the best weights of the last stage; masters of frozen stacks.
    """
    form, most = packing(exp.precision), 0
    held: set[str] = set()
    apart = untied_from(exp.rack, made)
    master = {"none": 0, "bf16": 2, "fp32": 4}[exp.precision.master]
    for number, stage in enumerate(made):
        held |= {entry.stack for entry in stage.new or ()}
        untied = apart is not None and number >= apart
        trains = parts_trained(stage)
        still = changing = 0
        for part in ("embedding", "head", *held):
            tensors = part_tensors(exp, part, untied=untied)
            numbers = sum(count for count, _ in tensors)
            if part in trains:
                states = sum(state_bytes(exp.optim, exp.precision, *each) for each in tensors)
                average = 4 * numbers if exp.optim.ema is not None else 0
                changing += trained_bytes(exp, tensors) + states + average
            elif part in held:
                still += stack_bytes(exp, form)
                still += master * numbers * (form is not None)
            else:
                still += trained_bytes(exp, tensors)
        most = max(most, still + 2 * changing)
    return most
