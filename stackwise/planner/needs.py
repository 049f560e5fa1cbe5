"""What an experiment needs of a machine, and what of it the machine has too little of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import plan_rows
from stackwise.memory.disk import ENDLESS, cache_bytes, checkpoint_bytes
from stackwise.memory.limits import free_disk
from stackwise.planner.hardware import THIS
from stackwise.planner.units import gb, gib
from stackwise.probing import as_probed
from stackwise.rules import check_placement
from stackwise.stage import Stage
from stackwise.training.placing import check_trunk

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.planner.hardware import Hardware


@dataclass(frozen=True)
class Needs:
    """The most that an experiment takes at a time.

    Attributes:
        made: Its stages.
        rows: What `plan_rows` gives for each.
        cache_bytes: Of cached outputs, on disk.
        checkpoint_bytes: Of checkpoints, on disk, masters and kept ends of stages included.
        cache_limit: Bytes that the placement lets caches have; None: no limit.
    """

    made: tuple[Stage, ...]
    rows: Sequence[Mapping[str, Any]]
    cache_bytes: int
    checkpoint_bytes: int
    cache_limit: float | None = None

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
        if self.cache_limit is not None and self.cache_bytes > self.cache_limit:
            yield (
                f"placement.cache_gb: cached outputs take {gb(self.cache_bytes)}, and "
                f"{gb(self.cache_limit)} are allowed"
            )

    def fits(self, machine: Hardware) -> bool:
        """Whether a machine has it all."""
        return not any(self.problems(machine))


def with_disk(machine: Hardware, placement: Placement) -> Hardware:
    """The machine at hand with what is free where a placement keeps its runs; another as it is."""
    if machine.name != THIS or machine.disk_bytes is not None:
        return machine
    return replace(machine, disk_bytes=free_disk(Path(placement.runs_dir)))


def placed_on(placement: Placement, machine: Hardware) -> Placement:
    """A placement on the device of a machine.

    Raises:
        ExperimentError: If it names another kind.
    """
    if placement.device not in ("auto", machine.kind):
        where = "this machine" if machine.name == THIS else machine.name
        raise ExperimentError(
            f"placement.device: {placement.device!r}, but the plan is for {where}, which "
            f"computes on {machine.kind}; use auto, or another --hardware"
        )
    return placement.replace(device=machine.kind)


def needs(
    exp: Experiment,
    placement: Placement,
    *,
    machine: Hardware | None = None,
    epoch_samples: int = ENDLESS,
) -> Needs:
    """What an experiment needs, carried out in a way.

    Args:
        exp: The experiment.
        placement: The way; its device decides what lies on a card and what beside it.
        machine: Where: at hand it may lack a package. None: wherever it can be.
        epoch_samples: Samples of the training text, which bound what a cache holds where
            `data.distinct_epochs` lets rows repeat.

    Raises:
        ExperimentError: If it has no stages, or cannot be carried out so.
    """
    elsewhere = machine is None or machine.name != THIS
    check_placement(exp, placement, elsewhere=elsewhere)
    made, card = stages(exp), None if placement.device == "auto" else placement.device == "cuda"
    check_trunk(exp, placement, made)
    exp = as_probed(exp, made)
    return Needs(
        made=made,
        rows=plan_rows(exp, placement, made, card=card),
        cache_bytes=cache_bytes(exp, placement, made, epoch_samples),
        checkpoint_bytes=checkpoint_bytes(
            exp,
            made,
            kept=placement.keep_stages,
            last=placement.keep_last,
            bests=placement.keep_best,
        ),
        cache_limit=None if placement.cache_gb is None else placement.cache_gb * 1e9,
    )
