"""What a run takes on disk, by arithmetic: its checkpoints, and the outputs of its trunks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from stackwise.adapters import SUFFIX, carried_after
from stackwise.block_diffusion import rows_read
from stackwise.budget import steps_of
from stackwise.by_stage import in_blocks
from stackwise.completion import packing
from stackwise.data.heldout import rows_at_once
from stackwise.memory.earlier import Earlier
from stackwise.memory.flops import vocab_size
from stackwise.memory.held import held_copies
from stackwise.memory.lowrank import adapter_tensors
from stackwise.memory.stored import (
    Tensors,
    part_tensors,
    stack_bytes,
    state_of,
    trained_bytes,
    trained_tensors,
)
from stackwise.probing import DRIFT_POSITIONS, drift_windows
from stackwise.stage import Stage, keeps_state, parts_trained, trained_next, trunk_of, untied_from
from stackwise.trunk.border import border_of
from stackwise.trunk.room import bytes_needed
from stackwise.trunk.shards import Layout

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

NAME_BYTES = 160  # of a tensor in the header of its file; the longest name of a block's included
ENDLESS = 1 << 60  # samples of an epoch, where the text has not been opened


def layout_of(exp: Experiment, rows: int, group: int, length: int | None = None) -> Layout:
    """How the cached outputs of an experiment's trunks lie: whole groups of rows in a shard.

    Args:
        exp: The experiment.
        rows: How many rows there are.
        group: Those of a shard are a multiple of it.
        length: Tokens of each; None: `data.seq_len`. Read block by block, they are kept twice.
    """
    size = rows_read(exp.objective, length or exp.data.seq_len)
    border = border_of(exp.precision)
    return Layout(rows, size, exp.rack.d_model, border, group=group)


def looks_at_ends(exp: Experiment) -> bool:
    """Whether a stage's looks at held-out windows go through its trunk for the end's loss alone.

    As they do around freezing a stack to less, and throughout with `eval.depths=last`.
    """
    return exp.eval.depths == "last" or packing(exp.precision) is not None


def rows_of(exp: Experiment, stage: Stage, epoch_samples: int) -> int:
    """Different samples of a stage, masks included."""
    length, period = stage.seq_len or exp.data.seq_len, exp.data.distinct_epochs
    read, parts = (stage.tokens or 0) // length, exp.data.seq_len // length
    return read if period is None else min(read, period * epoch_samples * parts)


def cache_bytes(
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    epoch_samples: int,
    *,
    since: int = 0,
    lingering: int = 0,
) -> int:
    """The most that the caches of a run take at a time: a stage's, and those of the one before it.

    Args:
        exp: The experiment.
        placement: Says whether there are caches.
        made: Its stages.
        epoch_samples: Samples of an epoch.
        since: The stage from which on it is asked.
        lingering: Bytes of older caches that are there by then.
    """
    if placement.trunk != "cached":
        return 0
    most = 0
    for stage in made[since:]:
        if trunk_of(stage):
            rows = rows_of(exp, stage, epoch_samples)
            own = in_blocks(exp, stage)
            taken = bytes_needed(layout_of(own, rows, exp.optim.batch, stage.seq_len))
            if looks_at_ends(exp):
                taken += bytes_needed(layout_of(own, exp.eval.windows, rows_at_once(exp)))
            most, lingering = max(most, lingering + taken), taken
    return most


def checkpoint_bytes(
    exp: Experiment,
    made: Sequence[Stage],
    *,
    since: int = 0,
    kept: bool = False,
    ends: Collection[int] | None = None,
    last: int = 1,
    bests: int = 1,
) -> int:
    """The most that checkpoints take at a time, from a stage on: while one replaces the last.

    Every part that is there, with the moments that a later stage begins with; what a stage keeps of
    the rack before it, and what its drift is measured against; what trains, with its states, and a
    second time while it is written anew, or is frozen and its master is written; and the best
    weights of the last stage. Where the end of each stage is kept, also what stages since have
    changed of it; where earlier checkpoints are, what each has of its own.

    Args:
        exp: The experiment.
        made: Its stages.
        since: The stage from which on it is asked.
        kept: Whether the ends of stages are kept (`placement.keep_stages`).
        ends: The stages before `since` whose end is kept, as a fork has fewer than it has stages
            done; None for all of them if ends are kept, and none otherwise.
        last: Checkpoints that are kept (`placement.keep_last`).
        bests: Looks whose weights are kept (`placement.keep_best`).

    Source: `tests/integration/test_a_run_takes_the_disk_that_it_says.py`.
    """
    rows = checkpoint_rows(exp, made, since=since, kept=kept, ends=ends, last=last, bests=bests)
    return max(rows[since:], default=0) + drift_bytes(exp, made)


def checkpoint_rows(
    exp: Experiment,
    made: Sequence[Stage],
    *,
    since: int = 0,
    kept: bool = False,
    ends: Collection[int] | None = None,
    last: int = 1,
    bests: int = 1,
) -> list[int]:
    """The same for each stage, without what drift is measured against."""
    rows, before = list[int](), Earlier(last)
    held, trained = set[str](), set[str]()
    at_border, changed = dict[str, int](), 0  # bytes of each part's file; of those replaced since
    written = dict[str, int]()  # the first stage whose end has that file
    known = kept_ends(len(made), since, kept, ends)
    stored = {}  # of the ends, and of a stack: all are alike
    apart = untied_from(exp.rack, made)
    for number, stage in enumerate(made):
        held |= {entry.stack for entry in stage.new or ()}
        untied = apart is not None and number >= apart
        trains = parts_trained(stage)
        trained |= trains
        still = changing = after = best = 0
        for tensors in held_copies(exp, stage, untied).values():
            still += trained_bytes(exp, tensors) + NAME_BYTES * len(tensors)
        copies, replaced = still, 0
        for part, count in at_border.items():
            if part in trains and known.intersection(range(written[part], number)):
                changed += count
            elif part in trains:
                replaced += count
        written |= dict.fromkeys(trains, number)
        for part in ("embedding", "head", *sorted(held)):
            tensors = part_tensors(exp, part, untied=untied)
            moved = trained_tensors(exp, part, untied=untied)
            kind = part if part in ("embedding", "head") else "stack", untied
            if kind not in stored:
                stored[kind] = frozen_bytes(exp, part, tensors)
            frozen = stored[kind]
            if part in trains:
                states = _states(exp, part, moved, untied)
                while_it_trains = trained_bytes(exp, tensors) + states
                changing += while_it_trains
                after += max(while_it_trains, frozen)
                at_border[part] = frozen + _for_later(exp, made, number, part, moved, untied)
                best += trained_bytes(exp, tensors) * (number == len(made) - 1)
            else:
                at_border.setdefault(part, frozen)
                written.setdefault(part, number)
                still += frozen
                if part in trained:
                    still += _for_later(exp, made, number, part, moved, untied)
        carried = carried_after(made[: number + 1])
        gone = {name for name in at_border if name.endswith(SUFFIX)}
        for name in gone - {adapter.part for adapter in carried.values()}:  # merged since
            count = at_border.pop(name)
            if known.intersection(range(written[name], number)):
                changed += count
            else:
                replaced += count
        for adapter in carried.values():
            tensors = adapter_tensors(exp, adapter)
            weights = trained_bytes(exp, tensors) + NAME_BYTES * len(tensors)
            if adapter.part not in trains:
                still += weights
                continue
            states = _states(exp, adapter.part, tensors, untied, stage)
            changing += weights + states
            after += weights + states
            best += weights * (number == len(made) - 1)
            at_border[adapter.part] = weights + _for_later(
                exp, made, number, adapter.part, tensors, untied
            )
        before.enter(after, steps_of(exp, stage), replaced, copies)
        looks = min(bests, exp.eval.points + 1)
        rows.append(still + changing + after + best * looks + changed + before.bytes)
    return rows


def drift_bytes(exp: Experiment, made: Sequence[Stage]) -> int:
    """Of what drift over a stage is measured against, which lies beside checkpoints meanwhile."""
    if not exp.eval.drift or len(made) < 2:
        return 0
    places = min(DRIFT_POSITIONS, drift_windows(exp) * exp.data.seq_len)
    exits = 1 + exp.rack.blocks_per_stack * max(len(stage.path) for stage in made[:-1])
    return 8 * places * (exits * places + vocab_size(exp)) + NAME_BYTES * (exits + 2)


def kept_ends(count: int, since: int, kept: bool, ends: Collection[int] | None) -> set[int]:
    """The stages whose end is kept by the time that all are done, as `checkpoint_bytes` is told."""
    before = range(since if kept else 0) if ends is None else ends
    return {*before, *(range(since, count) if kept else ())}


def frozen_bytes(exp: Experiment, part: str, tensors: Tensors) -> int:
    """Of a part that does not train, and its master, on disk."""
    form = packing(exp.precision)
    if part in ("embedding", "head") or form is None:
        return trained_bytes(exp, tensors) + NAME_BYTES * len(tensors)
    stored = stack_bytes(exp, form) + 2 * NAME_BYTES * len(tensors)
    if exp.precision.master == "none":
        return stored
    each = {"bf16": 2, "fp32": 4}[exp.precision.master]
    return stored + sum((each if axes >= 2 else 4) * n + NAME_BYTES for n, axes in tensors)


def _moments(
    exp: Experiment, part: str, tensors: Tensors, untied: bool, stage: Stage | None = None
) -> int:
    return state_of(exp, part, untied=untied, stage=stage) + 6 * NAME_BYTES * len(tensors)


def _for_later(
    exp: Experiment,
    made: Sequence[Stage],
    number: int,
    part: str,
    tensors: Tensors,
    untied: bool,
) -> int:
    """What is kept at the end of a stage of a part that a later one trains, beside its weights."""
    if keeps_state(made, number, part):
        return _moments(exp, part, tensors, untied, made[number])
    again = trained_next(made, number, part) is not None
    return _lower(exp, part, tensors) if again else 0


def _lower(exp: Experiment, part: str, tensors: Tensors) -> int:
    """Lower halves of bfloat16 weights, where no master on disk takes their place."""
    packed = part not in ("embedding", "head") and packing(exp.precision) is not None
    low = exp.precision.weights == "bfloat16" and exp.precision.rounding == "master"
    if packed or not low:
        return 0
    return sum(2 * count + NAME_BYTES for count, axes in tensors if axes >= 2)


def _states(
    exp: Experiment, part: str, tensors: Tensors, untied: bool, stage: Stage | None = None
) -> int:
    """What a checkpoint inside a stage has of a part beside its weights, and its names."""
    average = 4 * sum(count for count, _ in tensors) if exp.optim.ema is not None else 0
    return _moments(exp, part, tensors, untied, stage) + average + 2 * NAME_BYTES * len(tensors)
