"""The largest stacks and micro-batches of an experiment that a machine holds.

A stack of more blocks makes fewer stages, and each trains more of the rack at once; a larger
micro-batch wastes less. Both take memory, so that there is a frontier: for each size of stack, the
largest micro-batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stackwise.errors import ExperimentError
from stackwise.memory.disk import ENDLESS
from stackwise.model.shape import total_blocks
from stackwise.planner.needs import Needs, needs, placed_on, with_disk
from stackwise.planner.timed import in_tokens

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.planner.hardware import Hardware


@dataclass(frozen=True)
class Fit:
    """A size of stack that fits, with the largest micro-batch that does.

    Attributes:
        experiment: The same rack, cut into stacks of that size.
        placement: With that micro-batch.
        needs: What it takes.
    """

    experiment: Experiment
    placement: Placement
    needs: Needs

    @property
    def changes(self) -> dict[str, Any]:
        """What to type."""
        shape, place = self.experiment.rack, self.placement
        return {
            "rack.stacks": shape.stacks,
            "rack.blocks_per_stack": shape.blocks_per_stack,
            "placement.micro_batch": place.micro_batch,
            "placement.trunk": place.trunk,
        }

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        taken = self.needs
        return {
            "changes": self.changes,
            "peak_bytes": taken.peak_bytes,
            "host_bytes": taken.host_bytes,
            "cache_bytes": taken.cache_bytes,
            "checkpoint_bytes": taken.checkpoint_bytes,
        }


def fits(
    exp: Experiment, placement: Placement, machine: Hardware, *, epoch_samples: int = ENDLESS
) -> tuple[Fit, ...]:
    """What fits of an experiment, from the largest stack to the smallest.

    The trunk lies where the placement says, and if nothing fits so, streamed from disk.

    Args:
        exp: Its blocks are cut into stacks of every size that divides them.
        placement: Its micro-batch is left open.
        machine: What it has to fit.
        epoch_samples: Samples of the training text, as for `plan`.

    Raises:
        ExperimentError: If the experiment cannot be carried out so anywhere.
    """
    placement, machine = placed_on(placement, machine), with_disk(machine, placement)
    streamed = placement.replace(
        trunk="streamed", stream_from="disk", cache_gb=None, cache_dir=None
    )
    refused: list[ExperimentError] = []
    tried = 0
    for place in (placement, streamed) if streamed != placement else (placement,):
        found = list[Fit]()
        for cut in cuts(exp):
            tried += 1
            try:
                spent = in_tokens(cut, place, machine, epoch_samples=epoch_samples)
                best = largest(spent, place, machine, epoch_samples)
            except ExperimentError as error:  # as too few tokens for so many stages
                refused.append(error)
                continue
            found += [] if best is None else [best]
        if found:
            return tuple(found)
    if len(refused) == tried:
        raise refused[0]
    return ()


def cuts(exp: Experiment) -> Iterator[Experiment]:
    """The same rack in stacks of every size that divides it, the largest first."""
    blocks = total_blocks(exp.rack)
    for size in sorted(divisors(blocks), reverse=True):
        try:
            yield exp.replace(rack={"stacks": blocks // size, "blocks_per_stack": size})
        except ExperimentError:  # as a curriculum with a weight for each stage
            continue


def largest(
    exp: Experiment, placement: Placement, machine: Hardware, epoch_samples: int = ENDLESS
) -> Fit | None:
    """The largest micro-batch that fits, of those that divide the batch; None if none does."""
    sizes = sorted(divisors(exp.optim.batch))
    if exp.optim.grads == "in_backward":
        sizes = sizes[-1:]  # it adds up no gradients
    low, high, best = 0, len(sizes) - 1, None
    while low <= high:
        middle = (low + high) // 2
        place = placement.replace(micro_batch=sizes[middle])
        taken = needs(exp, place, machine=machine, epoch_samples=epoch_samples)
        if taken.fits(machine):
            best, low = Fit(exp, place, taken), middle + 1
        else:
            high = middle - 1
    return best


def divisors(count: int) -> list[int]:
    """Every number that divides it."""
    return [n for n in range(1, count + 1) if count % n == 0]
