"""What a device takes beside the tensors that a step asks for: one stated term for each.

A real allocator hands out more than it is asked for, and libraries keep buffers of their own. These
are measured, not derived: `benchmarks/plan_memory.py` holds the CPU's.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from stackwise.budget import steps_before, steps_of
from stackwise.memory.counted import micro_samples, micro_tokens, most_counted
from stackwise.memory.flops import vocab_size
from stackwise.memory.stored import block_linears, part_tensors, trained_bytes
from stackwise.objective import Diffusion
from stackwise.training.chunked import LOGITS_AT_ONCE
from stackwise.trunk.filling import STAGING_BYTES

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

MIB = 1 << 20
PROCESS_GROWS_BYTES = 3 * MIB  # buffers of a float32 product, and what a run keeps beside tensors
PRODUCT_BYTES = int(0.56 * MIB)  # compiled code and what comes with it
PRODUCTS_KEPT = 1024  # oneDNN's cache, as it is unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says
PROCESS_BYTES = 3 << 30  # interpreter, torch and a CUDA runtime, their libraries included


def overhead(exp: Experiment, placement: Placement, stage: Stage, *, card: bool) -> int:
    """Bytes beside the tensors at a stage's highest moment."""
    if card:
        return 0
    products = bfloat16_products(exp, placement, stage)
    return PROCESS_GROWS_BYTES + PRODUCT_BYTES * products


def bfloat16_products(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """How many products of different shapes a run has made in bfloat16 by the end of a stage.

    oneDNN compiles code for each and keeps that of the last 1024. Where the number of counted
    positions is drawn, each micro-batch has a head of another shape.
    """
    if exp.precision.compute != "bfloat16":
        return 0
    batch, micro = exp.optim.batch, micro_samples(exp, placement)
    sizes = 1 + (batch % micro > 0)
    shapes = len(set(block_linears(exp.rack, exp.attention)))
    heads = sizes
    if isinstance(exp.objective, Diffusion):
        steps = steps_before(exp, stage) + steps_of(exp, stage)
        heads = min(micro_tokens(exp, placement), steps * ceil(batch / micro))
    pieces = 3 if most_counted(exp, placement, stage) * vocab_size(exp) <= LOGITS_AT_ONCE else 6
    return min(PRODUCTS_KEPT, shapes * (3 * sizes + 1) + heads * pieces)


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
