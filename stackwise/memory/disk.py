"""What a run takes on disk, by arithmetic: its checkpoints, and the outputs of its trunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackwise.stage import Stage, trunk_of
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
