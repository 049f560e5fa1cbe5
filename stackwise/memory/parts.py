"""What a micro-batch takes while it passes: kept activations, head, matrices in hand, batches.

Numbers that `peak.py` puts on a timeline. Bytes that are there throughout are in `bytes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from typing import TYPE_CHECKING

from stackwise.adapters import SUFFIX
from stackwise.block_diffusion import read_as, rows_read
from stackwise.completion import packing
from stackwise.data.workers import most_held
from stackwise.memory.counted import in_pieces, micro_rows, micro_samples, most_counted
from stackwise.memory.flops import vocab_size
from stackwise.memory.held import distilling_bytes, held_activations
from stackwise.memory.stored import (
    block_linears,
    trained_linears,
    trained_shapes,
    trained_tensors,
)
from stackwise.model.block import block_matmul_parameters, block_saved, norm_saved
from stackwise.model.formats import room_for
from stackwise.model.saved import Saved
from stackwise.model.shape import attention_shape, cycle
from stackwise.model.working import Passing
from stackwise.model.workspace import MAPPED_BYTES
from stackwise.objective import direction_of
from stackwise.preserving import distils
from stackwise.stage import Role, Stage, parts_trained, trunk_of
from stackwise.training.aim import is_hidden
from stackwise.training.chunked import LOGITS_AT_ONCE
from stackwise.training.optim_costs import beside_bytes, buffer_bytes, gradient_bytes, step_bytes
from stackwise.trunk.border import border_of

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.model.working import Moment

FLOAT = 4
ROWS_AHEAD = 4  # batches of a cache's rows: in hand, two ahead, one that is being read
TOKEN_BYTES = 17  # of a batch: two ids and whether it counts
MAKING_BYTES = 40  # of a token while its batch is made: draws, ids, masks

Beside = dict[str, int]  # bytes, by `head`, `blocks` and `embedding`


@dataclass(frozen=True)
class Bytes:
    """Bytes of a stage, or of one of its parts, by category."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    average: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """All categories."""
        return self.weights + self.gradients + self.optimizer + self.average + self.activations

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(
            self.weights + other.weights,
            self.gradients + other.gradients,
            self.optimizer + other.optimizer,
            self.average + other.average,
            self.activations + other.activations,
        )


@dataclass(frozen=True)
class Micro:
    """A micro-batch of a stage.

    Attributes:
        tokens: Of one forward pass: rows, where text is read block by block.
        passing: How its samples pass through a block.
        checkpointing: Whether blocks keep their input alone.
        accumulates: Whether there are several in a batch.
        saved: What a block of a role keeps for backward while it is worked through.
        kept: The same between its forward and its backward.
        copies: Of that, autocast's copies of weights.
        weights: Numbers of a block in products.
        gradients: All of a stage's, where they are held whole.
        buffer: The one that linear layers share, where tensors move in backward.
        beside: And the largest that is not in it, while the head, blocks or the embedding move;
            empty where gradients are whole.
        weight_bytes: Of one number of a matrix that trains.
        matrix: One more matrix: dequantised for one product, or cast; by forward and backward.
        head: Temporaries and gradients at each moment of the head.
        waiting: The head's part of a tied table's gradient, until the embedding's is there.
        table: Temporaries of the embedding's backward.
        slice: What an optimizer's step takes at a time.
        other: Batches, and the buffer of small dequantised matrices.
    """

    tokens: int
    passing: Passing
    checkpointing: bool
    accumulates: bool
    saved: dict[Role, int]
    kept: dict[Role, int]
    copies: dict[Role, int]
    weights: int
    gradients: int
    buffer: int
    beside: Beside
    weight_bytes: int
    matrix: dict[tuple[Role, bool], int]
    head: tuple[tuple[int, int], ...]
    waiting: int
    table: int
    slice: int
    other: int

    def bytes_of(self, moment: Moment) -> int:
        """What is there at a moment of a block."""
        floats = self.tokens * moment.floats.bytes(2 if self.passing.low else FLOAT)
        return floats + moment.squares * self.passing.length**2

    def weight(self, role: Role, *, forward: bool = False) -> int:
        """One more matrix, where a block of this role needs one for a product."""
        return self.matrix.get((role, forward), 0)

    def copied(self, role: Role, moment: Moment) -> int:
        """Autocast's copies of weights, of which a product's goes with it."""
        left = self.weights - moment.made - moment.still + moment.hand
        return self.copies[role] * left // self.weights

    def hand(self, numbers: int) -> int:
        """Of a gradient in the making: in the dtype of products, before it is cast or added."""
        low = self.passing.low
        cast = low and self.weight_bytes == FLOAT
        return numbers * ((2 if low else FLOAT) if cast or self.accumulates else 0)


def micros_of(
    exp: Experiment, placement: Placement, stage: Stage, *, untied: bool, card: bool
) -> tuple[Micro, ...]:
    """A whole micro-batch of a stage, and what is left of its batch, if that is less.

    Where a batch has a single whole one, that meets no gradients of an earlier one; the rest does.
    """
    whole = micro_of(exp, placement, stage, untied=untied, card=card)
    samples, batch = micro_samples(exp, placement), exp.optim.batch
    if not batch % samples:
        return (whole,)
    rest = micro_of(
        exp, placement.replace(micro_batch=batch % samples), stage, untied=untied, card=card
    )
    return replace(whole, accumulates=batch > 2 * samples), rest


def micro_of(
    exp: Experiment, placement: Placement, stage: Stage, *, untied: bool, card: bool
) -> Micro:
    """A micro-batch of a stage; of several, one that is not the first."""
    low = exp.precision.compute == "bfloat16"
    each = 2 if low else FLOAT
    tokens = micro_rows(exp, placement)
    weight_bytes = 2 if exp.precision.weights == "bfloat16" else FLOAT
    saved: dict[Role, int] = {"trunk": 0}
    kept: dict[Role, int] = {"trunk": 0}
    copies: dict[Role, int] = {"trunk": 0}
    for role in ("active", "suffix"):
        copies[role] = copied_bytes(exp, placement, role)
        saved[role] = tokens * saved_of(exp, role == "active").bytes(each)
        inputs = tokens * FLOAT * exp.rack.d_model
        kept[role] = inputs if placement.checkpointing else saved[role] + copies[role]
    in_backward = exp.optim.grads == "in_backward"
    shared = exp.rack.tied and not untied and stage.head
    table = vocab_size(exp) * exp.rack.d_model
    waiting = shared * weight_bytes * table
    buffer, beside = in_hand(exp, placement, stage, untied) if in_backward else (0, {})
    gradients = 0
    for part in parts_trained(stage) if not in_backward else ():
        tensors = trained_tensors(exp, part, untied=untied, stage=stage)
        gradients += gradient_bytes(exp.optim, exp.precision, (), tensors)
    return Micro(
        tokens=tokens,
        passing=passing_of(exp),
        checkpointing=placement.checkpointing,
        accumulates=micro_samples(exp, placement) < exp.optim.batch,
        saved=saved,
        kept=kept,
        copies=copies,
        weights=block_matmul_parameters(exp.rack, exp.attention),
        gradients=gradients,
        buffer=buffer,
        beside=beside,
        weight_bytes=weight_bytes,
        matrix=matrices(exp, placement, card),
        head=(
            *head_moments(exp, placement, stage, untied, card),
            *distilling_moments(exp, placement, stage),
        ),
        waiting=waiting,
        table=max(
            table_bytes(exp, stage, untied, tokens, weight_bytes) - waiting,
            in_backward * table_step_bytes(exp, card),
        ),
        slice=slice_bytes(exp, stage, untied, card),
        other=mask_bytes(exp)
        + batch_bytes(exp, placement, stage, card)
        + unpacked_bytes(exp, placement, stage, card)
        + held_activations(exp, stage, tokens, most_counted(exp, placement, stage)),
    )


def passing_of(exp: Experiment) -> Passing:
    """How samples of an experiment pass through a block."""
    tokens = exp.data.seq_len
    low = exp.precision.compute == "bfloat16"
    return Passing(rows_read(exp.objective, tokens), direction_of(exp.objective, tokens), low)


def slice_bytes(exp: Experiment, stage: Stage, untied: bool, card: bool) -> int:
    """What a step of the optimizer takes at a time: in backward, of the blocks alone."""
    parts = parts_trained(stage)
    if exp.optim.grads == "in_backward":  # the ends have moments of their own
        parts -= {"embedding", "head"}
    whole = {
        (shape, is_hidden(part))
        for part in parts
        for shape in trained_shapes(exp, part, untied=untied, stage=stage)
    }
    return step_bytes(exp.optim, exp.precision, card=card, whole=whole)


def table_step_bytes(exp: Experiment, card: bool) -> int:
    """The same of the embedding's or the head's table alone."""
    shape = vocab_size(exp), exp.rack.d_model
    whole = [(shape, False)]
    return step_bytes(exp.optim, exp.precision, card=card, numbers=prod(shape), whole=whole)


def saved_of(exp: Experiment, trains: bool) -> Saved:
    """Numbers per token that a block of an experiment keeps for backward."""
    length, causal, _ = passing_of(exp)
    return block_saved(exp.rack, exp.attention, length, causal, trains)


def copied_bytes(exp: Experiment, placement: Placement, role: Role) -> int:
    """Autocast's copies of a block's float32 weights: it keeps those that it multiplies with."""
    casts = exp.precision.compute == "bfloat16" and exp.precision.weights == "float32"
    plain = role == "active" or (packing(exp.precision) is None and placement.trunk == "recompute")
    if role == "trunk" or not (casts and plain):
        return 0
    return 2 * block_matmul_parameters(exp.rack, exp.attention)


def in_hand(
    exp: Experiment, placement: Placement, stage: Stage, untied: bool
) -> tuple[int, Beside]:
    """Gradients that are there at once where tensors move in backward.

    Returns:
        The buffer that linear layers share, as large as the largest; and beside it, by where
        tensors move, a copy of such a one in its weight's dtype, or the largest other gradient.
    """
    linears: dict[str, list[int]] = {}
    others: dict[str, list[tuple[int, int]]] = {}
    for part in parts_trained(stage):
        end = part in ("embedding", "head")
        tensors = trained_tensors(exp, part, untied=untied, stage=stage)
        if part.endswith(SUFFIX):
            others["blocks"] = [*others.get("blocks", ()), *tensors]
            continue
        where = part if end else "blocks"
        if not end:
            sizes = trained_linears(exp.rack, exp.attention)
            linears[where] = [rows * columns for rows, columns in sizes]
            tensors = tuple(tensor for tensor in tensors if tensor[1] < 2)
        others[where] = [*others.get(where, ()), *tensors]
    if stage.head and head_in_buffer(exp, placement, stage, untied):
        table = (vocab_size(exp) * exp.rack.d_model, 2)
        others["head"].remove(table)
        linears["head"] = [table[0]]
    return buffer_bytes(exp.precision, chain(*linears.values())), {
        where: beside_bytes(exp.precision, linears.get(where, ()), rest)
        for where, rest in others.items()
    }


def head_in_buffer(exp: Experiment, placement: Placement, stage: Stage, untied: bool) -> bool:
    """Whether the gradient of a head's table is made, chunk by chunk, in the shared buffer."""
    own, moves = not exp.rack.tied or untied, exp.optim.grads == "in_backward"
    return moves and own and in_pieces(exp, placement, stage)


def dequantises(exp: Experiment, placement: Placement) -> bool:
    """Whether a frozen matrix is made anew for each product with it."""
    form, low = packing(exp.precision), exp.precision.compute == "bfloat16"
    if form is None:  # as it trains: lent float32 is cast
        return placement.trunk != "recompute" and low and exp.precision.weights == "float32"
    return form != ("bf16" if low else "fp32")


def largest(exp: Experiment) -> list[int]:
    """Bytes of each matrix of a block as it is multiplied with, the largest first."""
    each = 2 if exp.precision.compute == "bfloat16" else FLOAT
    found = (each * room_for(shape) for shape in block_linears(exp.rack, exp.attention))
    return sorted(found, reverse=True)


def matrices(exp: Experiment, placement: Placement, card: bool) -> dict[tuple[Role, bool], int]:
    """One matrix in hand, beside the shared buffer of small ones."""
    found: dict[tuple[Role, bool], int] = {}
    if dequantises(exp, placement):
        one = largest(exp)[0]
        one = one if card or one >= MAPPED_BYTES else 0
        return {("trunk", True): one, ("suffix", True): one, ("suffix", False): one}
    casts = exp.precision.compute == "bfloat16" and exp.precision.weights == "float32"
    if casts and packing(exp.precision) is None:
        found["trunk", True] = largest(exp)[0]
        if placement.checkpointing:
            for role in ("active", "suffix"):
                found[role, True] = copied_bytes(exp, placement, role)
    return found


def unpacked_bytes(exp: Experiment, placement: Placement, stage: Stage, card: bool) -> int:
    """The buffer that small dequantised matrices share on a CPU, as long as the run trains."""
    frozen = set(stage.path) - set(stage.active or ())
    if card or not frozen or not dequantises(exp, placement):
        return 0
    return max((size for size in largest(exp) if size < MAPPED_BYTES), default=0)


def head_moments(
    exp: Experiment, placement: Placement, stage: Stage, untied: bool, card: bool
) -> tuple[tuple[int, int], ...]:
    """Temporaries and gradients while the head is worked through, forward and back.

    Logits: their log-softmax, its gradient and theirs. Many are made a few rows, and backward a
    few columns, at a time. And a move, where tensors move in backward.
    """
    low, width, vocab = exp.precision.compute == "bfloat16", exp.rack.d_model, vocab_size(exp)
    each, kept = 2 if low else FLOAT, 2 if exp.precision.weights == "bfloat16" else FLOAT
    tokens, counted = micro_rows(exp, placement), most_counted(exp, placement, stage)
    pre = exp.rack.norm_place == "pre"
    norm = counted * norm_saved(exp.rack).bytes(FLOAT) if pre else counted * FLOAT * width
    if exp.rack.head_transform:
        norm += counted * (2 * FLOAT * width + norm_saved(exp.rack).bytes(FLOAT))
    moves = stage.head and exp.optim.grads == "in_backward"
    table = vocab * width
    moving = table_step_bytes(exp, card) if moves else 0
    cast = 2 * table if low and kept == FLOAT else 0  # the head's weight, as it is multiplied with
    own = kept * table * stage.head
    made = (2 if low else FLOAT) * table if stage.head else 0
    back = 2 * tokens * FLOAT * width + counted * FLOAT * width
    if in_pieces(exp, placement, stage):
        # Those of the piece before are there until the next are made, of which the last may be few.
        new = FLOAT + 2 * low
        piece = max(1, LOGITS_AT_ONCE // vocab)
        before, now = piece * vocab, max(0, min(counted - piece, piece)) * vocab
        forward = max(before * new, before * FLOAT + now * new)
        piece = max(1, LOGITS_AT_ONCE // counted)
        before, now = piece * counted, max(0, min(vocab - piece, piece)) * counted
        backward = max(before * new, before * each + now * new) * stage.head
        rows = norm + counted * each * width * 3 + cast
        if head_in_buffer(exp, placement, stage, untied):
            made, own = 0, own if cast else 0
        extra = made if cast else 0  # a gradient before it is cast
        return (
            (rows + forward, 0),
            (rows + backward + extra, 0 if cast else own),
            (rows + moving, own),
            (norm + cast + extra + back, own),
        )
    features = counted * each * width * stage.head
    logits = counted * vocab * FLOAT
    moved = made if cast else 0
    return (
        (norm + features + 3 * logits + cast, 0),
        (norm + features + counted * (vocab + width) * each + cast + moved, own),
        (norm + features + cast + moving, own),
        (back, own),
    )


def distilling_moments(
    exp: Experiment, placement: Placement, stage: Stage
) -> tuple[tuple[int, int], ...]:
    """Temporaries and gradients while predictions are distilled, in the place of the head's own."""
    if not distils(stage):
        return ()
    counted, vocab = most_counted(exp, placement, stage), vocab_size(exp)
    norm = counted * 2 * norm_saved(exp.rack).bytes(FLOAT) if exp.rack.norm_place == "pre" else 0
    kept = 2 if exp.precision.weights == "bfloat16" else FLOAT
    own = kept * vocab * exp.rack.d_model * stage.head
    return ((norm + distilling_bytes(vocab, counted), own),)


def table_bytes(exp: Experiment, stage: Stage, untied: bool, tokens: int, kept: int) -> int:
    """The embedding's backward: the residual's gradient; a tied table's second gradient."""
    rows = tokens * exp.rack.d_model * (FLOAT + (kept if kept < FLOAT else 0))
    tied = exp.rack.tied and not untied and stage.head
    return rows + tied * 2 * kept * vocab_size(exp) * exp.rack.d_model


def batch_bytes(exp: Experiment, placement: Placement, stage: Stage, card: bool) -> int:
    """Batches in hand and ahead, on a card the micro-batch that is there; and what a cache gives.

    From a cache come rows of the mapped file, float8 ones made bfloat16 ahead; each micro-batch is
    made float32, and on a card is a copy.
    """
    cached = placement.trunk == "cached" and bool(trunk_of(stage))
    border, width = border_of(exp.precision), exp.rack.d_model
    here = micro_rows(exp, placement)
    if card:
        row = width * (FLOAT + (2 if border != "float32" else 0))
        return here * (TOKEN_BYTES + cached * row)
    found = batches_ahead(exp, placement)
    if cached and border != "float32":
        found += here * FLOAT * width
    if cached and border == "fp8":
        found += rows_ahead(exp)
    return found


def batches_ahead(exp: Experiment, placement: Placement) -> int:
    """Batches of ids and masks in the host's memory, by how many threads make them."""
    rows, workers = rows_read(exp.objective, exp.data.seq_len), placement.data_workers
    making = max(1, workers) * MAKING_BYTES
    return exp.optim.batch * rows * (most_held(workers) * TOKEN_BYTES + making)


def mask_bytes(exp: Experiment) -> int:
    """What rows see of each other, where text is read block by block: once for layers alike."""
    blocks = read_as(exp.objective, exp.data.seq_len)
    if blocks is None:
        return 0
    each = 2 if exp.precision.compute == "bfloat16" else FLOAT
    shapes = (attention_shape(exp.rack, number) for number in range(cycle(exp.rack)))
    near = (shape.window or blocks.noisy for shape in shapes)
    kinds = len({min(window, blocks.last_place) for window in near})
    return kinds * each * blocks.rows**2


def rows_ahead(exp: Experiment) -> int:
    """Rows of a cache that are there with them, as they are handed on."""
    each = FLOAT if border_of(exp.precision) == "float32" else 2
    rows = rows_read(exp.objective, exp.data.seq_len)
    return ROWS_AHEAD * exp.optim.batch * rows * each * exp.rack.d_model
