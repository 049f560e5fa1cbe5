"""What a device takes beside the tensors that a step asks for: one stated term for each.

A real allocator hands out more than it is asked for, and libraries keep buffers of their own. These
are measured, not derived: `benchmarks/plan_memory.py` holds the CPU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.memory.parts import batches_ahead, rows_ahead
from stackwise.memory.products import bfloat16_products, packed_bytes
from stackwise.memory.stored import part_tensors, trained_bytes
from stackwise.trunk.filling import STAGING_BYTES

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

MIB = 1 << 20
PROCESS_GROWS_BYTES = 2 * MIB  # what a run keeps beside tensors
PRODUCT_BYTES = int(0.56 * MIB)  # compiled code and what comes with it
PROCESS_BYTES = 3 << 30  # interpreter, torch and a CUDA runtime, their libraries included


def overhead(exp: Experiment, placement: Placement, stage: Stage, *, card: bool) -> int:
    """Bytes beside the tensors at a stage's highest moment.

    Nothing on a card: its context and the holes of its allocator are no part of the memory that is
    handed out, which is what a run measures; the table of cards has what is usable without them.
    """
    if card:
        return 0
    compiled = PRODUCT_BYTES * bfloat16_products(exp, placement, stage)
    return PROCESS_GROWS_BYTES + compiled + packed_bytes(exp, placement, stage)


def host_parts(
    exp: Experiment, placement: Placement, copy: int, *, card: bool, paged: int = 0
) -> dict[str, int]:
    """Host memory beside a card, by what takes it; nothing where the CPU computes.

    Args:
        exp: The experiment.
        placement: How it is carried out.
        copy: Bytes of lent blocks that are held there.
        card: Whether it computes on a card.
        paged: Bytes of optimizer state in unified memory: the card takes of it what it has room
            for, and what it has not waits here.
    """
    if not card:
        return {}
    lends = placement.trunk != "recompute"
    largest = max(trained_bytes(exp, part_tensors(exp, part)) for part in ("embedding", "s0"))
    return {
        "copy": copy,
        "staging": 2 * STAGING_BYTES * (lends and placement.stream_from == "disk"),
        "batches": batches_ahead(exp, placement) + rows_ahead(exp) * (placement.trunk == "cached"),
        "part": largest,
        **({"paged": paged} if paged else {}),
        "process": PROCESS_BYTES,
    }
