"""What an experiment needs of a machine, and what of it the machine has too little of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise.curriculum import stages
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk import cache_bytes, checkpoint_bytes
from stackwise.planner.units import gb, gib
from stackwise.rules import check_placement
from stackwise.stage import Stage
from stackwise.training.placing import check_trunk

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.planner.hardware import Hardware

ENDLESS = 1 << 60  # samples of an epoch, where the text has not been opened


@dataclass(frozen=True)
class Needs:
    """The most that an experiment takes at a time.

    Attributes:
        made: Its stages.
        rows: What `plan_rows` gives for each.
        cache_bytes: Of cached outputs, on disk.
        checkpoint_bytes: Of checkpoints, on disk, masters included.
    """

    made: tuple[Stage, ...]
    rows: Sequence[Mapping[str, Any]]
    cache_bytes: int
    checkpoint_bytes: int

    @property
    def worst(self) -> Mapping[str, Any]:
        """The stage that takes most on the device."""
        return max(self.rows, key=lambda row: int(row["peak_bytes"]))

    @property
    def peak_bytes(self) -> int:
        """On the device that computes, at the highest moment."""
        return int(self.worst["peak_bytes"])

    @property
    def host_bytes(self) -> int:
        """Of the host's memory beside a card; on a CPU all is in `peak_bytes`."""
        return max(sum(row["host"].values()) for row in self.rows)

    @property
    def disk_bytes(self) -> int:
        """Checkpoints and caches together."""
        return self.cache_bytes + self.checkpoint_bytes

    def problems(self, machine: Hardware) -> Iterator[str]:
        """What of a machine is too little, with both figures."""
        where = "card" if machine.kind == "cuda" else "machine"
        if self.peak_bytes > machine.memory_bytes:
            yield (
                f"memory: stage {self.worst['stage']} takes {gib(self.peak_bytes)} at its "
                f"{self.worst['peak_at']}, and the {where} has {gib(machine.memory_bytes)}"
            )
        if machine.kind == "cuda" and self.host_bytes > machine.host_bytes:
            yield f"host memory: takes {gb(self.host_bytes)} of {gb(machine.host_bytes)}"
        if machine.disk_bytes is not None and self.disk_bytes > machine.disk_bytes:
            yield (
                f"disk: takes {gb(self.disk_bytes)} (checkpoints {gb(self.checkpoint_bytes)}, "
                f"cached outputs {gb(self.cache_bytes)}), and {gb(machine.disk_bytes)} are free"
            )

    def fits(self, machine: Hardware) -> bool:
        """Whether a machine has it all."""
        return not any(self.problems(machine))


def needs(exp: Experiment, placement: Placement, *, epoch_samples: int = ENDLESS) -> Needs:
    """What an experiment needs, carried out in a way.

    Args:
        exp: The experiment.
        placement: The way; its device decides what lies on a card and what beside it.
        epoch_samples: Samples of the training text, which bound what a cache holds where
            `data.distinct_epochs` lets rows repeat.

    Raises:
        ExperimentError: If it has no stages, or cannot be carried out so anywhere.
    """
    check_placement(exp, placement, elsewhere=True)
    made, card = stages(exp), None if placement.device == "auto" else placement.device == "cuda"
    check_trunk(exp, placement, made)
    return Needs(
        made=made,
        rows=plan_rows(exp, placement, made, card=card),
        cache_bytes=cache_bytes(exp, placement, made, epoch_samples),
        checkpoint_bytes=checkpoint_bytes(exp, made),
    )
