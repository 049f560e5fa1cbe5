"""What a device takes beside the tensors that a step asks for: one stated term for each.

A real allocator hands out more than it is asked for, and libraries keep buffers of their own. These
are measured, not derived: `benchmarks/plan_memory.py` holds the CPU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.memory.stored import part_tensors, trained_bytes
from stackwise.trunk.filling import STAGING_BYTES

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.memory.parts import Micro
    from stackwise.memory.peak import Peak

MIB = 1 << 20
PROCESS_BYTES = 3 << 30  # interpreter, torch and a CUDA runtime, their libraries included


def overhead(peak: Peak, micro: Micro, *, card: bool) -> int:
    """Bytes beside the tensors at a stage's highest moment."""
    return 0


def host_parts(exp: Experiment, placement: Placement, copy: int, *, card: bool) -> dict[str, int]:
    """Host memory beside a card, by what takes it; nothing where the CPU computes.

    Args:
        exp: The experiment.
        placement: How it is carried out.
        copy: Bytes of lent blocks that are held there.
        card: Whether it computes on a card.
    """
    if not card:
        return {}
    tokens = exp.optim.batch * exp.data.seq_len
    lends = placement.trunk != "recompute"
    largest = max(trained_bytes(exp, part_tensors(exp, part)) for part in ("embedding", "s0"))
    return {
        "copy": copy,
        "staging": 2 * STAGING_BYTES * (lends and placement.stream_from == "disk"),
        "batches": 4 * 17 * tokens
        + 4 * 4 * tokens * exp.rack.d_model * (placement.trunk == "cached"),
        "part": largest,
        "process": PROCESS_BYTES,
    }
