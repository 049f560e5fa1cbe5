"""The rack that probes look at: one in memory at a time, whichever panel asked for it.

A rack that does not fit is read a few blocks at a time from its files; one that does not fit even
so is refused, with what it takes and what there is.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stackwise as sw
from stackwise.memory.limits import free_memory
from stackwise.runs.damage import RunError
from stackwise_widgets.views.markup import bytes_said

if TYPE_CHECKING:
    from stackwise import Rack

KEPT_BYTES = 1 << 30  # a larger rack is not held between two probes
BESIDE_BYTES = 256 << 20  # what a probe takes beside the weights, of short texts
BLOCKS_AT_ONCE = 3  # that a reader holds of a rack that is lent


@dataclass(frozen=True)
class Room:
    """Whether a rack fits.

    Attributes:
        bytes: Of its weights.
        lent: Whether its stacks are read a few blocks at a time.
        said: In words.
    """

    bytes: int
    lent: bool
    said: str


def room_for(run: sw.Run, free: int | None = None) -> Room:
    """Whether the rack of a run's last checkpoint fits into memory now.

    Args:
        run: The run; it has a checkpoint.
        free: Bytes that there are; None: ask the system.

    Raises:
        RunError: If it does not fit, not even a few blocks at a time.
        CheckpointError: If the checkpoint is damaged.
    """
    from stackwise.training.manifest import read_manifest
    from stackwise.training.part_names import holds_weights

    parts: Mapping[str, Any] = read_manifest(run.path / "rack")["parts"]
    taken = {name: int(entry["bytes"]) for name, entry in parts.items() if holds_weights(name)}
    whole = sum(taken.values())
    free = free_memory() if free is None else free
    if free is None or whole + BESIDE_BYTES <= free:
        return Room(whole, False, f"its rack takes {bytes_said(whole)} while it is looked at")
    ends = ("embedding", "head")
    block = max((n for name, n in taken.items() if name not in ends), default=0)
    block //= run.experiment.rack.blocks_per_stack
    few = sum(taken.get(name, 0) for name in ends) + BLOCKS_AT_ONCE * block
    if few + BESIDE_BYTES <= free:
        return Room(
            few,
            True,
            f"its rack takes {bytes_said(whole)}, and {bytes_said(free)} are free: it is read "
            f"block by block from its files at each probe, {bytes_said(few)} at a time, which is "
            "slow",
        )
    raise RunError(
        f"run {run.id}: its rack takes {bytes_said(whole)}, block by block still "
        f"{bytes_said(few)}, and {bytes_said(free)} of memory are free; look at it on a larger "
        "machine"
    )


class OneRack:
    """Holds one rack at most."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held: tuple[object, Rack] | None = None

    @contextmanager
    def open(self, run: sw.Run) -> Iterator[Rack]:
        """The rack of a run's last checkpoint, for as long as the block lasts; one at a time.

        Raises:
            RunError: If it does not fit.
            CheckpointError: If there is no checkpoint, or it is damaged.
        """
        from stackwise.training.manifest import read_manifest

        with self._lock:
            if not run.has_weights():
                run.rack()  # says why
            key = (run.path.resolve(), read_manifest(run.path / "rack")["sha256"])
            if self._held is None or self._held[0] != key:
                self.drop()
                room = room_for(run)
                rack = run.rack(lent="disk" if room.lent else None)
                self._held = (key, rack.requires_grad_(False))
                small = room.bytes <= KEPT_BYTES and not room.lent
            else:
                small = True
            try:
                yield self._held[1]
            finally:
                if not small:
                    self.drop()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For work that reads racks by itself: none is held meanwhile."""
        with self._lock:
            self.drop()
            yield

    def drop(self) -> None:
        """Hold none any more."""
        with self._lock:
            self._held = None
            gc.collect()


RACK = OneRack()  # one in this kernel, since memory is the kernel's
