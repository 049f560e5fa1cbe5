"""What plan.json says of the disk: the most that a run takes while each of its stages trains.

The arithmetic is in `disk.py`; what a run takes in fact is told by `runs/disk_use.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stackwise.memory.disk import ENDLESS, cache_bytes, checkpoint_rows, drift_bytes
from stackwise.stage import Stage, trunk_of

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement


def with_disk(
    rows: Sequence[Mapping[str, Any]],
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    epoch_samples: int = ENDLESS,
) -> list[dict[str, Any]]:
    """The rows of `plan_rows` with `disk`: bytes of `checkpoints` and of `caches`, at their worst.

    Args:
        rows: One for each stage.
        exp: The experiment, as it is probed.
        placement: How it is carried out.
        made: Its stages.
        epoch_samples: Samples of an epoch; they bound what a cache holds.
    """
    checkpoints = checkpoint_rows(
        exp,
        made,
        kept=placement.keep_stages,
        last=placement.keep_last,
        bests=placement.keep_best,
    )
    drift, lingering, found = drift_bytes(exp, made), 0, []
    for number, row in enumerate(rows):
        only = made[number : number + 1]
        caches = cache_bytes(exp, placement, only, epoch_samples, lingering=lingering)
        if trunk_of(made[number]):
            lingering = cache_bytes(exp, placement, only, epoch_samples)
        found.append(
            {**row, "disk": {"checkpoints": checkpoints[number] + drift, "caches": caches}}
        )
    return found
