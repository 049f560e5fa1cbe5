"""Bytes of weights, by part, as they train and as they are frozen.

The matrices of a block are taken from the block itself, built without memory, so that a format is
asked for exactly what it packs. What else training takes is in `bytes.py`; what lies on disk in
`disk.py`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from stackwise.adapters import SUFFIX, Adapter
from stackwise.choice import Params
from stackwise.memory.flops import vocab_size
from stackwise.memory.lowrank import Tensors as Tensors
from stackwise.memory.lowrank import adapter_shapes
from stackwise.model.block import Block, frozen_names
from stackwise.model.conditioning import CHANGES
from stackwise.model.formats import format_called
from stackwise.model.rack import Embedding, Head
from stackwise.model.shape import RackShape, d_ff
from stackwise.stage import Stage, parts_trained
from stackwise.training.optim_costs import paged_bytes, part_state_bytes

if TYPE_CHECKING:
    from stackwise.config import Experiment

Shapes = tuple[tuple[int, ...], ...]


@lru_cache(maxsize=64)
def block_shapes(shape: RackShape, attention: Params) -> Shapes:
    """The shape of each parameter of a block."""
    with torch.device("meta"):
        block = Block(shape, attention, 0)
    return tuple(tuple(p.shape) for p in block.parameters())


@lru_cache(maxsize=64)
def block_tensors(shape: RackShape, attention: Params) -> Tensors:
    """Numbers and axes of each parameter of a block."""
    return tuple((prod(each), len(each)) for each in block_shapes(shape, attention))


@lru_cache(maxsize=64)
def block_trained(shape: RackShape, attention: Params) -> Shapes:
    """The shape of each parameter of a block that trains where its stack does."""
    with torch.device("meta"):
        block = Block(shape, attention, 0)
    still = frozen_names(block)
    return tuple(tuple(p.shape) for name, p in block.named_parameters() if name not in still)


@lru_cache(maxsize=64)
def block_linears(shape: RackShape, attention: Params) -> tuple[tuple[int, int], ...]:
    """Outputs and inputs of each linear layer of a block."""
    with torch.device("meta"):
        block = Block(shape, attention, 0)
    found = [module for module in block.modules() if isinstance(module, nn.Linear)]
    return tuple((linear.out_features, linear.in_features) for linear in found)


@lru_cache(maxsize=64)
def trained_linears(shape: RackShape, attention: Params) -> tuple[tuple[int, int], ...]:
    """The same of those that train."""
    with torch.device("meta"):
        block = Block(shape, attention, 0)
    still = frozen_names(block)
    found = [
        module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.weight" not in still
    ]
    return tuple((linear.out_features, linear.in_features) for linear in found)


def token_linears(shape: RackShape, attention: Params) -> tuple[tuple[int, int], ...]:
    """Those of `block_linears` that every token goes through: all but the readout of the level."""
    found = list(block_linears(shape, attention))
    if shape.time != "none":
        found.remove((CHANGES * shape.d_model, shape.time_width))
    return tuple(found)


def part_tensors(exp: Experiment, part: str, *, untied: bool = False) -> Tensors:
    """Numbers and axes of each tensor of a part: `embedding`, `head` or a stack."""
    if part not in ("embedding", "head"):
        return block_tensors(exp.rack, exp.attention) * exp.rack.blocks_per_stack
    return tuple((prod(each), len(each)) for each in part_shapes(exp, part, untied=untied))


def part_shapes(exp: Experiment, part: str, *, untied: bool = False) -> Shapes:
    """The shape of each tensor of a part, in the same order."""
    vocab = vocab_size(exp)
    if part == "embedding":
        return _end_shapes(exp.rack, vocab, False)
    if part == "head":
        table = ((vocab, exp.rack.d_model),) if untied and exp.rack.tied else ()
        return (*_end_shapes(exp.rack, vocab, True), *table)
    return block_shapes(exp.rack, exp.attention) * exp.rack.blocks_per_stack


def trained_shapes(
    exp: Experiment, part: str, *, untied: bool = False, stage: Stage | None = None
) -> Shapes:
    """The shape of each tensor of a part that trains where the part does.

    Args:
        exp: The experiment.
        part: `embedding`, `head`, a stack, or the adapter of one: `s1.adapter`.
        untied: Whether a tied head has a table of its own by then.
        stage: Says of an adapter its rank and targets; not read for other parts.
    """
    if part in ("embedding", "head"):
        return part_shapes(exp, part, untied=untied)
    if part.endswith(SUFFIX):
        return adapter_shapes(exp, adapter_called(part, stage))
    return block_trained(exp.rack, exp.attention) * exp.rack.blocks_per_stack


def trained_tensors(
    exp: Experiment, part: str, *, untied: bool = False, stage: Stage | None = None
) -> Tensors:
    """Numbers and axes of the same; those of adapters as one axis, being float32 always."""
    shapes, one = trained_shapes(exp, part, untied=untied, stage=stage), part.endswith(SUFFIX)
    return tuple((prod(each), 1 if one else len(each)) for each in shapes)


def adapter_called(part: str, stage: Stage | None) -> Adapter:
    """The adapter of a stage by the name of its part, `s1.adapter`."""
    return {adapter.part: adapter for adapter in (stage and stage.adapters) or ()}[part]


def state_of(
    exp: Experiment, part: str, *, untied: bool = False, stage: Stage | None = None
) -> int:
    """Bytes of the optimizer's state of a part, its master's differences and spectral vectors."""
    shapes = trained_shapes(exp, part, untied=untied, stage=stage)
    if part.endswith(SUFFIX):
        exact = exp.precision.model_copy(update={"weights": "float32"})
        return part_state_bytes(exp.optim, exact, part, shapes)
    if part in ("embedding", "head"):
        return part_state_bytes(exp.optim, exp.precision, part, shapes)
    shapes = block_trained(exp.rack, exp.attention)
    state = part_state_bytes(exp.optim, exp.precision, part, shapes)
    return exp.rack.blocks_per_stack * state + spectral_bytes(exp)


def paged_of(exp: Experiment, stage: Stage, *, untied: bool = False) -> int:
    """What of a stage's state lies in unified memory, where a card computes."""
    trains = sorted(parts_trained(stage))
    shapes = (trained_shapes(exp, part, untied=untied, stage=stage) for part in trains)
    return sum(paged_bytes(exp.optim, each) for each in shapes)


@lru_cache(maxsize=64)
def _end_shapes(shape: RackShape, vocab: int, head: bool) -> Shapes:
    with torch.device("meta"):
        module: nn.Module = Head(shape, vocab) if head else Embedding(shape, vocab)
    return tuple(tuple(p.shape) for p in module.parameters())


def spectral_bytes(exp: Experiment) -> int:
    """The power iteration's vectors for a stack that trains: one number for each output."""
    if not exp.rack.spectral_norm:
        return 0
    still = exp.rack.frozen_up * (1 + (exp.rack.ffn == "swiglu")) * d_ff(exp.rack)
    outputs = sum(rows for rows, _ in token_linears(exp.rack, exp.attention)) - still
    return 4 * exp.rack.blocks_per_stack * outputs


def trained_bytes(exp: Experiment, tensors: Tensors) -> int:
    """Weights as they train: matrices in `precision.weights`, vectors in float32."""
    low = exp.precision.weights == "bfloat16"
    return sum(numbers * (2 if low and axes >= 2 else 4) for numbers, axes in tensors)


def stack_bytes(exp: Experiment, form: str | None) -> int:
    """A stack frozen to a format; None: as it trained."""
    whole = trained_bytes(exp, part_tensors(exp, "s0"))
    if form is None:
        return whole
    return whole - exp.rack.blocks_per_stack * (_linear_bytes(exp) - lent_bytes(exp, form))


def lent_bytes(exp: Experiment, form: str | None) -> int:
    """What a block takes of a slot: its matrices as they lie on disk."""
    if form is None:
        return _linear_bytes(exp)
    chosen = format_called(form)
    return sum(chosen.bytes_of(shape) for shape in block_linears(exp.rack, exp.attention))


def _linear_bytes(exp: Experiment) -> int:
    each = 2 if exp.precision.weights == "bfloat16" else 4
    return each * sum(o * i for o, i in block_linears(exp.rack, exp.attention))


def rest_bytes(exp: Experiment, form: str | None) -> int:
    """What of a lent stack stays in memory: norms and biases."""
    return stack_bytes(exp, form) - exp.rack.blocks_per_stack * lent_bytes(exp, form)
