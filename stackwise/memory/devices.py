"""What a device takes beside the tensors that a step asks for: one stated term for each.

A real allocator hands out more than it is asked for, and libraries keep buffers of their own. These
are measured, not derived: `benchmarks/plan_memory.py` holds the CPU's.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from stackwise.budget import steps_before, steps_of
from stackwise.data.heldout import rows_at_once
from stackwise.memory.counted import micro_samples, most_counted
from stackwise.memory.flops import vocab_size
from stackwise.memory.parts import batches_ahead, rows_ahead
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
    """Bytes beside the tensors at a stage's highest moment.

    Nothing on a card: its context and the holes of its allocator are no part of the memory that is
    handed out, which is what a run measures; the table of cards has what is usable without them.
    """
    if card:
        return 0
    products = bfloat16_products(exp, placement, stage)
    return PROCESS_GROWS_BYTES + PRODUCT_BYTES * products


def bfloat16_products(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """How many products of different shapes a run has made in bfloat16 by a stage's last step.

    oneDNN compiles code for each and keeps that of the last 1024. A layer has one forward and two
    backward; on held-out text it goes forward with rows of another number. Where the number of
    counted positions is drawn, each micro-batch has a head of another shape.
    """
    if exp.precision.compute != "bfloat16":
        return 0
    batch, micro, length = exp.optim.batch, micro_samples(exp, placement), exp.data.seq_len
    layers, head = block_linears(exp.rack, exp.attention), (vocab_size(exp), exp.rack.d_model)
    sizes = {micro, batch % micro} - {0}
    found = {
        product
        for samples in sizes
        for layer in layers
        for product in products(samples * length, layer)
    }
    most, others = most_counted(exp, placement, stage), 0
    pieces = 3 if most * vocab_size(exp) <= LOGITS_AT_ONCE else 6
    if isinstance(exp.objective, Diffusion):
        steps = steps_before(exp, stage) + steps_of(exp, stage)
        others = pieces * min(micro * length, steps * ceil(batch / micro))
    elif pieces > 3:
        others = pieces * len(sizes)
    else:
        for samples in sizes:
            found |= set(products(round(most * samples / micro), head))
    if has_looked(exp, stage):
        at_once = rows_at_once(exp)
        for windows in {min(at_once, exp.eval.windows), exp.eval.windows % at_once} - {0}:
            found |= {products(windows * length, layer)[0] for layer in (*layers, head)}
    return min(PRODUCTS_KEPT, len(found) + others)


def products(rows: int, layer: tuple[int, int]) -> tuple[tuple[str, int, int, int], ...]:
    """What a layer of (outputs, inputs) has its matrices multiplied by: forward, and backward."""
    outputs, inputs = layer
    return (
        ("forward", rows, inputs, outputs),
        ("input", rows, outputs, inputs),
        ("weight", outputs, rows, inputs),
    )


def has_looked(exp: Experiment, stage: Stage) -> bool:
    """Whether a run has read held-out text before the last step of a stage."""
    begin, end = stage.progress
    steps = steps_of(exp, stage)
    return begin > 0 or (steps - 1) * (end - begin) * exp.eval.points >= steps


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
    lends = placement.trunk != "recompute"
    largest = max(trained_bytes(exp, part_tensors(exp, part)) for part in ("embedding", "s0"))
    return {
        "copy": copy,
        "staging": 2 * STAGING_BYTES * (lends and placement.stream_from == "disk"),
        "batches": batches_ahead(exp) + rows_ahead(exp) * (placement.trunk == "cached"),
        "part": largest,
        "process": PROCESS_BYTES,
    }
