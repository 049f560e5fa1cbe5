"""Attention kinds: one file each, one entry in `ATTENTION`.

An entry pairs the parameters and the module of a kind with the arithmetic of its cost.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from stackwise.choice import Choice, Params, find
from stackwise.model.attention import kernel, mha, mla
from stackwise.model.saved import Saved
from stackwise.model.shape import AttentionShape, RackShape, attention_shape, total_blocks


def no_problems(shape: AttentionShape, params: Params) -> list[str]:
    """The check of a kind that goes with every rack."""
    return []


@dataclass(frozen=True)
class AttentionKind(Choice):
    """An entry of `ATTENTION`. `build` is the module's class: (shape, params) -> module.

    Attributes:
        parameters: Every trainable number.
        matmul_parameters: Weights in matrix products: 2 FLOPs each per token, forward.
        score_flops: (shape, params, tokens, causal) to FLOPs per token, forward, of the rest.
        saved_floats: (shape, params, trains) to numbers per token kept for backward, when the
            weights train, or when they are frozen and gradient passes through.
        cache_floats: Numbers per token in a KV cache.
        check: What is wrong with the parameters on this shape.
    """

    parameters: Callable[[AttentionShape, Any], int] = lambda shape, params: 0
    matmul_parameters: Callable[[AttentionShape, Any], int] = lambda shape, params: 0
    score_flops: Callable[[AttentionShape, Any, int, bool], float] = (
        lambda shape, params, length, causal: 0.0
    )
    saved_floats: Callable[[AttentionShape, Any, bool], Saved] = lambda shape, params, trains: (
        Saved(0, 0)
    )
    cache_floats: Callable[[AttentionShape, Any], int] = lambda shape, params: 0
    check: Callable[[AttentionShape, Any], list[str]] = no_problems


ATTENTION: dict[str, AttentionKind] = {
    "mha": AttentionKind(
        mha.SoftmaxAttention,
        mha.Mha,
        mha.parameters,
        mha.matmul_parameters,
        mha.score_flops,
        mha.saved_floats,
        mha.cache_floats,
        mha.check_mha,
    ),
    "gqa": AttentionKind(
        mha.SoftmaxAttention,
        mha.Gqa,
        mha.parameters,
        mha.matmul_parameters,
        mha.score_flops,
        mha.saved_floats,
        mha.cache_floats,
    ),
    "mla": AttentionKind(
        mla.LatentAttention,
        mla.Mla,
        mla.parameters,
        mla.matmul_parameters,
        mla.score_flops,
        mla.saved_floats,
        mla.cache_floats,
        mla.check,
    ),
    "kernel": AttentionKind(
        kernel.KernelAttention,
        kernel.Kernel,
        kernel.parameters,
        kernel.matmul_parameters,
        kernel.score_flops,
        kernel.saved_floats,
        kernel.cache_floats,
        kernel.check,
    ),
}


def kind_of(params: Params) -> AttentionKind:
    """The registry's entry for these parameters."""
    entry = find(ATTENTION, params.choice, "attention")
    assert isinstance(entry, AttentionKind), "ATTENTION holds AttentionKind entries only"
    return entry


def build_attention(shape: AttentionShape, params: Params) -> nn.Module:
    """The attention module of one block."""
    module: nn.Module = kind_of(params).build(shape, params)
    return module


def check_attention(rack: RackShape, params: Params) -> list[str]:
    """What is wrong with an attention kind on the blocks of this rack, one line per problem."""
    check, listed = kind_of(params).check, (rack.rope_base, rack.window)
    cycle = math.lcm(*(len(entry) for entry in listed if isinstance(entry, tuple)))
    blocks = range(min(cycle, total_blocks(rack)))
    shapes = dict.fromkeys(attention_shape(rack, block) for block in blocks)
    return list(dict.fromkeys(line for shape in shapes for line in check(shape, params)))
