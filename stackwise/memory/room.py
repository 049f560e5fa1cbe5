"""Whether a machine has the bytes that training takes by arithmetic; asked before it is built."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from stackwise.errors import DoesNotFit
from stackwise.memory.bytes import on_card
from stackwise.memory.limits import memory_limit
from stackwise.report import bytes_text

if TYPE_CHECKING:
    from stackwise.config import Placement


def check_room(plan: Sequence[Mapping[str, Any]], placement: Placement) -> None:
    """Raise if training takes more memory by arithmetic than the device, or its host, has in all.

    What other programs hold of it is not looked at: it changes, and the arithmetic does not.

    Args:
        plan: What `plan_rows` gave.
        placement: The placement that it was made for.

    Raises:
        DoesNotFit: If it does.
    """
    takes, has = most_bytes(plan), device_bytes(placement)
    device = "card" if on_card(placement) else "machine"
    if has is not None and takes > has:
        raise DoesNotFit(
            f"rack: training takes {bytes_text(takes)} by arithmetic, and this {device} has "
            f"{bytes_text(has)}; {ways_left(placement)}"
        )
    lent, has = max(row["host_bytes"] for row in plan), machine_bytes()
    if has is not None and lent > has:
        raise DoesNotFit(
            f"placement.stream_from: 'host', whose copy takes {bytes_text(lent)} by arithmetic, "
            f"and this machine has {bytes_text(has)}; give stream_from=disk, or freeze to less "
            "with precision.frozen"
        )


def most_bytes(plan: Sequence[Mapping[str, Any]]) -> int:
    """The highest peak of all stages of a plan."""
    return int(max(row["peak_bytes"] for row in plan))


def device_bytes(placement: Placement) -> int | None:
    """Memory in all of the device that computes; None where the system does not say."""
    return int(torch.cuda.mem_get_info()[1]) if on_card(placement) else machine_bytes()


def ways_left(placement: Placement) -> str:
    """What may be changed so that training takes less, without what is so already."""
    ways = ["make the rack smaller"]
    if placement.micro_batch != 1:
        ways.append("lower placement.micro_batch")
    if not placement.checkpointing:
        ways.append("give placement.checkpointing=true")
    if placement.trunk != "streamed":
        ways.append("with a curriculum that freezes stacks, give placement.trunk=streamed")
    return f"{', or '.join(ways)}; `stackwise plan` says what would fit"


def machine_bytes() -> int | None:
    """Memory that this process may have: the machine's, or its container's; None: not known."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system says
        return None
    limit = memory_limit()
    return machine if limit is None else min(machine, limit)
