"""What adapters add to a stage, by arithmetic: numbers, FLOPs, and what autograd keeps.

For a matrix of o outputs and i inputs an adapter of rank r has r (o + i) numbers, A (r, i) and
B (o, r). Per row its two products are 2 r (o + i) FLOPs forward, and twice that in backward: a row
is a token, or one of its two where text is read noisy and clean. The stack under it is crossed as a
suffix is. Where nothing that trains comes before, what its first matrices read needs no gradient:
`not_needed` is what that saves.

Source: torch's counter, in `tests/unit/test_adapters_cost_what_is_counted.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.adapters import Adapter
from stackwise.block_diffusion import rows_read
from stackwise.model.attention import kind_of
from stackwise.model.block import block_scores, ffn_matmul_parameters, norm_saved
from stackwise.model.linears import Linear, readers, targeted
from stackwise.model.saved import Saved
from stackwise.model.shape import attention_shape
from stackwise.objective import direction_of
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.model.direction import Direction

Tensors = tuple[tuple[int, int], ...]  # numbers and axes of each


def adapters_of(stage: Stage) -> dict[str, Adapter]:
    """The adapters of a stage by their stack."""
    return {adapter.stack: adapter for adapter in stage.adapters or ()}


def leftmost(stage: Stage) -> str | None:
    """The stack with the leftmost adapter, if nothing that trains comes before it."""
    stops = {*adapters_of(stage), *(stage.active or ())}
    first = next((stack for stack in stage.path if stack in stops), None)
    return first if not stage.embedding and first in adapters_of(stage) else None


def layers(exp: Experiment, adapter: Adapter) -> tuple[Linear, ...]:
    """The linear layers of a block that get one."""
    return targeted(exp.rack, exp.attention, adapter.targets)


def adapter_shapes(exp: Experiment, adapter: Adapter) -> tuple[tuple[int, int], ...]:
    """The shape of each A and B of a stack."""
    block = [
        shape
        for each in layers(exp, adapter)
        for shape in ((adapter.rank, each.inputs), (each.outputs, adapter.rank))
    ]
    return tuple(block) * exp.rack.blocks_per_stack


def adapter_tensors(exp: Experiment, adapter: Adapter) -> Tensors:
    """Numbers of each of them, and one axis: they are float32, as vectors are."""
    return tuple((rows * columns, 1) for rows, columns in adapter_shapes(exp, adapter))


def adapter_numbers(exp: Experiment, adapter: Adapter) -> int:
    """Trainable numbers of an adapter."""
    return sum(count for count, _ in adapter_tensors(exp, adapter))


def reading(exp: Experiment) -> tuple[int, Direction]:
    """Rows of a sample, and how they see each other."""
    tokens = exp.data.seq_len
    return rows_read(exp.objective, tokens), direction_of(exp.objective, tokens)


def forward_flops(exp: Experiment, adapter: Adapter) -> float:
    """FLOPs per row of the products of one block's adapters, forward."""
    return 2.0 * adapter.rank * sum(o + i for _, o, i in layers(exp, adapter))


def not_needed(exp: Experiment, adapter: Adapter, block: int) -> float:
    """FLOPs per row that the leftmost block saves, where no gradient reaches its input.

    No input gradient of the matrices that read it, nor of their A. With targets=ffn no backward of
    its attention either.
    """
    first = readers(exp.rack, exp.attention, adapter.targets)
    saved = 2.0 * adapter.rank * sum(each.inputs for each in first)
    if adapter.targets != "ffn":
        return saved + 2.0 * kind_of(exp.attention).input_parameters(
            attention_shape(exp.rack, block), exp.attention
        )
    inside = kind_of(exp.attention).matmul_parameters(
        attention_shape(exp.rack, block), exp.attention
    )
    scores = block_scores(exp.rack, exp.attention, block, *reading(exp))
    saved += 2.0 * (inside + sum(each.weights for each in first))
    return saved + 2 * scores.pairs + scores.constant


def kept_beside(exp: Experiment, adapter: Adapter) -> Saved:
    """Numbers per row that a block keeps beyond those of a suffix: inputs of A, and of B."""
    inner, wide = attention_shape(exp.rack, 0), ffn_matmul_parameters(exp.rack)
    found = Saved(0, adapter.rank * len(layers(exp, adapter)))
    (length, direction), kind = reading(exp), kind_of(exp.attention)
    if adapter.targets != "ffn":
        trains, crossed = (
            kind.saved_floats(inner, exp.attention, length, direction, way) for way in (True, False)
        )
        found = found.plus(Saved(trains.full - crossed.full, trains.compute - crossed.compute))
    if adapter.targets != "attention":
        hidden = wide // exp.rack.d_model // (3 if exp.rack.ffn == "swiglu" else 2)
        found = found.plus(Saved(0, hidden + exp.rack.d_model))
    return found


def not_kept(exp: Experiment, adapter: Adapter) -> Saved:
    """Numbers per row that the leftmost block does not keep of those of a suffix.

    Nothing of what comes before its first adapter.
    """
    norm, pre = norm_saved(exp.rack), exp.rack.norm_place == "pre"
    if adapter.targets != "ffn":
        return norm if pre else Saved(0, 0)
    inner, kind = attention_shape(exp.rack, 0), kind_of(exp.attention)
    return norm.plus(norm if pre else Saved(0, 0)).plus(
        kind.saved_floats(inner, exp.attention, *reading(exp), False)
    )
