"""Bytes of weights, by part, as they train and as they are frozen.

The matrices of a block are taken from the block itself, built without memory, so that a format is
asked for exactly what it packs. What else training takes is in `bytes.py`; what lies on disk in
`disk.py`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import nn

from stackwise.choice import Params
from stackwise.memory.flops import vocab_size
from stackwise.memory.lowrank import Tensors as Tensors
from stackwise.memory.lowrank import adapter_tensors
from stackwise.model.block import Block
from stackwise.model.formats import format_called
from stackwise.model.init import Unfilled
from stackwise.model.rack import Embedding, Head
from stackwise.model.shape import RackShape
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Experiment


@lru_cache(maxsize=64)
def block_tensors(shape: RackShape, attention: Params) -> Tensors:
    """Numbers and axes of each parameter of a block."""
    with Unfilled():
        block = Block(shape, attention, 0)
    return tuple((p.numel(), p.ndim) for p in block.parameters())


@lru_cache(maxsize=64)
def block_linears(shape: RackShape, attention: Params) -> tuple[tuple[int, int], ...]:
    """Outputs and inputs of each linear layer of a block."""
    with Unfilled():
        block = Block(shape, attention, 0)
    found = [module for module in block.modules() if isinstance(module, nn.Linear)]
    return tuple((linear.out_features, linear.in_features) for linear in found)


def trained_tensors(exp: Experiment, stage: Stage, part: str, *, untied: bool = False) -> Tensors:
    """Numbers and axes of each tensor of a part that a stage trains, an adapter among them."""
    for adapter in stage.adapters or ():
        if adapter.part == part:
            return adapter_tensors(exp, adapter)
    return part_tensors(exp, part, untied=untied)


def part_tensors(exp: Experiment, part: str, *, untied: bool = False) -> Tensors:
    """Numbers and axes of each tensor of a part: `embedding`, `head` or a stack."""
    vocab = vocab_size(exp)
    if part == "embedding":
        return _end_tensors(exp.rack, vocab, False)
    if part == "head":
        table = ((vocab * exp.rack.d_model, 2),) if untied and exp.rack.tied else ()
        return (*_end_tensors(exp.rack, vocab, True), *table)
    return block_tensors(exp.rack, exp.attention) * exp.rack.blocks_per_stack


@lru_cache(maxsize=64)
def _end_tensors(shape: RackShape, vocab: int, head: bool) -> Tensors:
    with torch.device("meta"):
        module: nn.Module = Head(shape, vocab) if head else Embedding(shape, vocab)
    return tuple((p.numel(), p.ndim) for p in module.parameters())


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
