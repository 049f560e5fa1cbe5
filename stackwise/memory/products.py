"""What libraries keep of the matrix products of a run on a CPU: compiled code, packed pieces.

oneDNN compiles code for each shape of a product in bfloat16. MKL copies the pieces of float32
matrices that it multiplies to where they lie side by side, for each of its threads, and keeps the
memory. Both are measured, not documented; `benchmarks/plan_memory.py` holds what comes of them.
"""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import TYPE_CHECKING

import torch

from stackwise.block_diffusion import BlockDiffusion, rows_read
from stackwise.budget import steps_before, steps_of
from stackwise.by_stage import as_read
from stackwise.data.heldout import rows_at_once
from stackwise.memory.counted import in_pieces, micro_rows, micro_samples, most_counted
from stackwise.memory.flops import counted_frac, vocab_size
from stackwise.memory.stored import token_linears
from stackwise.objective import Diffusion
from stackwise.probing import DRIFT_POSITIONS, drift_windows
from stackwise.training.chunked import LOGITS_AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

PRODUCTS_KEPT = 1024  # oneDNN's cache, as it is unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says
DEEP, WIDE, ALIGNED = 384, 3200, 10  # rows and columns of MKL's pieces, at most; of alignment

Product = tuple[str, int, int, int]  # way, and rows x inner x columns


def bfloat16_products(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """How many products of different shapes a run has made in bfloat16 by a stage's last step.

    oneDNN compiles code for each and keeps that of the last 1024. A layer has one forward and two
    backward; on held-out text it goes forward with rows of another number. Where the number of
    counted positions is drawn, each micro-batch has a head of another shape.
    """
    if exp.precision.compute != "bfloat16":
        return 0
    batch, micro = exp.optim.batch, micro_samples(exp, placement)
    own = as_read(exp, stage)
    tokens, length = own.data.seq_len, rows_read(own.objective, own.data.seq_len)
    looked = rows_read(own.objective, exp.data.seq_len)
    layers, head = token_linears(exp.rack, exp.attention), (vocab_size(exp), exp.rack.d_model)
    sizes = {micro, batch % micro} - {0}
    found = {
        product
        for samples in sizes
        for layer in layers
        for product in products(samples * length, layer)
    }
    most, others = most_counted(exp, placement, stage), 0
    pieces = 6 if in_pieces(exp, placement, stage) else 3
    if isinstance(exp.objective, Diffusion | BlockDiffusion):
        steps = steps_before(exp, stage) + steps_of(exp, stage)
        others = pieces * min(micro * tokens, steps * ceil(batch / micro))
    elif pieces > 3:
        others = pieces * len(sizes)
    else:
        for samples in sizes:
            found |= set(products(round(most * samples / micro), head))
    if has_looked(exp, stage):
        at_once = rows_at_once(exp)
        sizes_looked = {min(at_once, exp.eval.windows), exp.eval.windows % at_once}
        for windows in {*sizes_looked, *drifts(exp, stage)} - {0}:
            found |= {products(windows * looked, layer)[0] for layer in layers}
        for windows in sizes_looked - {0}:
            chosen = round(counted_frac(exp, stage) * windows * exp.data.seq_len)
            found.add(products(chosen, head)[0])
        for windows in drifts(exp, stage):
            found.add(products(min(DRIFT_POSITIONS, windows * exp.data.seq_len), head)[0])
    return min(PRODUCTS_KEPT, len(found) + others)


def products(rows: int, layer: tuple[int, int]) -> tuple[Product, ...]:
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


def drifts(exp: Experiment, stage: Stage) -> tuple[int, ...]:
    """Held-out windows that are read at the borders of a stage, where they are."""
    return (drift_windows(exp),) if exp.eval.drift and stage.progress[0] > 0 else ()


def packed_bytes(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """What MKL keeps after the float32 products of a step; nothing where torch was built without.

    Source: `tests/integration/memory/test_packed_pieces_are_counted_as_mkl_keeps_them.py`.
    """
    if exp.precision.compute != "float32" or not torch.backends.mkl.is_available():
        return 0
    threads = placement.threads or torch.get_num_threads()
    return kept_bytes((sizes for _, *sizes in float32_products(exp, placement, stage)), threads)


def float32_products(exp: Experiment, placement: Placement, stage: Stage) -> Iterator[Product]:
    """The products of a run up to a stage's end, in the order in which they are first made.

    Forward, the head and backward of a micro-batch; then a look's, where there was one.
    """
    own = as_read(exp, stage)
    rows = micro_rows(own, placement)
    layers = token_linears(exp.rack, exp.attention)
    forward, *back = zip(*(products(rows, layer) for layer in layers), strict=True)
    backward = chain.from_iterable(zip(*map(reversed, back), strict=True))
    yield from chain(forward, head_products(exp, placement, stage), backward)
    if has_looked(exp, stage):
        windows = min(rows_at_once(exp), exp.eval.windows)
        looked = rows_read(own.objective, exp.data.seq_len)
        for count in (windows, *drifts(exp, stage)):
            yield from (products(count * looked, layer)[0] for layer in layers)


def head_products(exp: Experiment, placement: Placement, stage: Stage) -> tuple[Product, ...]:
    """Those of the head: its weight's only where it trains."""
    counted = max(1, most_counted(exp, placement, stage))
    vocab, width = vocab_size(exp), exp.rack.d_model
    if not in_pieces(exp, placement, stage):
        return products(counted, (vocab, width))[: 2 + stage.head]
    # A few rows at a time, and backward a few columns.
    logits, back, _ = products(max(1, LOGITS_AT_ONCE // vocab), (vocab, width))
    again, _, weight = products(counted, (max(1, LOGITS_AT_ONCE // counted), width))
    return (logits, back, again, weight) if stage.head else (logits, back)


def kept_bytes(sizes: Iterable[Iterable[int]], threads: int) -> int:
    """Of all buffers: a product that needs a larger one than there is gets it, and both stay.

    As MKL had it on a processor with AVX-512, with 1 and 2 threads to a few percent, with 4 to 16
    within a factor of two; others cut other pieces.

    Args:
        sizes: Rows, inner and columns of each product, in their order.
        threads: MKL's.
    """
    kept = largest = 0
    for rows, inner, columns in sizes:
        piece = min(rows // min(2, threads), DEEP) + ALIGNED + min(columns // max(2, threads), WIDE)
        needed = threads * 4 * min(inner, DEEP) * piece
        if needed > largest:
            kept, largest = kept + needed, needed
    return kept
