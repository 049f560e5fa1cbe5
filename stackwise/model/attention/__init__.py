"""Attention kinds: one file each, one entry in `ATTENTION`.

An entry pairs the parameters and the module of a kind with the arithmetic of its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import nn

from stackwise.choice import Choice, Params, find
from stackwise.errors import ExperimentError
from stackwise.model.attention import kernel, mha, mla
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import (
    AttentionShape,
    RackShape,
    attention_shape,
    cycle,
    total_blocks,
)
from stackwise.model.working import Working


def no_problems(shape: AttentionShape, params: Params) -> list[str]:
    """The check of a kind that goes with every rack."""
    return []


@dataclass(frozen=True, kw_only=True)
class AttentionKind(Choice):
    """An entry of `ATTENTION`: `AttentionKind(module's class, its Params, parameters=..., ...)`.

    The class is called with (shape, params) and its `forward` with (x_BTD, *, causal). Costs are
    functions of (shape, params) and have no defaults: a kind that cost nothing would win every
    study at equal FLOPs. They are held against torch's counter and autograd in `tests/unit`.

    Attributes:
        parameters: Every trainable number.
        matmul_parameters: Weights in matrix products: 2 FLOPs each per token, forward.
        input_parameters: Those of them whose product reads what the sub-layer is given: where
            nothing before it trains, backward spends once on them, not twice.
        score_flops: (shape, params, tokens, causal) to FLOPs per token, forward, of other products.
        saved_floats: (shape, params, tokens, causal, trains) to numbers per token kept for
            backward, when the weights train, or when they are frozen and gradient passes through.
        working_floats: (shape, params, tokens, causal, products in bfloat16, trains) to numbers
            per token held at once at its highest moments.
        cache_floats: Numbers per token in a KV cache.
        check: What is wrong with the parameters on this shape.
    """

    parameters: Callable[[AttentionShape, Any], int]
    matmul_parameters: Callable[[AttentionShape, Any], int]
    input_parameters: Callable[[AttentionShape, Any], int]
    score_flops: Callable[[AttentionShape, Any, int, bool], Scores]
    saved_floats: Callable[[AttentionShape, Any, int, bool, bool], Saved]
    working_floats: Callable[[AttentionShape, Any, int, bool, bool, bool], Working]
    cache_floats: Callable[[AttentionShape, Any], int]
    check: Callable[[AttentionShape, Any], list[str]] = no_problems


ATTENTION: dict[str, AttentionKind] = {
    "mha": AttentionKind(
        mha.SoftmaxAttention,
        mha.Mha,
        parameters=mha.parameters,
        matmul_parameters=mha.matmul_parameters,
        input_parameters=mha.input_parameters,
        score_flops=mha.score_flops,
        saved_floats=mha.saved_floats,
        working_floats=mha.working_floats,
        cache_floats=mha.cache_floats,
        check=mha.check_mha,
    ),
    "gqa": AttentionKind(
        mha.SoftmaxAttention,
        mha.Gqa,
        parameters=mha.parameters,
        matmul_parameters=mha.matmul_parameters,
        input_parameters=mha.input_parameters,
        score_flops=mha.score_flops,
        saved_floats=mha.saved_floats,
        working_floats=mha.working_floats,
        cache_floats=mha.cache_floats,
    ),
    "mla": AttentionKind(
        mla.LatentAttention,
        mla.Mla,
        parameters=mla.parameters,
        matmul_parameters=mla.matmul_parameters,
        input_parameters=mla.input_parameters,
        score_flops=mla.score_flops,
        saved_floats=mla.saved_floats,
        working_floats=mla.working_floats,
        cache_floats=mla.cache_floats,
        check=mla.check,
    ),
    "kernel": AttentionKind(
        kernel.KernelAttention,
        kernel.Kernel,
        parameters=kernel.parameters,
        matmul_parameters=kernel.matmul_parameters,
        input_parameters=kernel.input_parameters,
        score_flops=kernel.score_flops,
        saved_floats=kernel.saved_floats,
        working_floats=kernel.working_floats,
        cache_floats=kernel.cache_floats,
        check=kernel.check,
    ),
}


def kind_of(params: Params) -> AttentionKind:
    """The registry's entry for these parameters.

    Raises:
        ExperimentError: If there is none, or it is something else than an `AttentionKind`.
    """
    entry = find(ATTENTION, params.choice, "attention")
    if not isinstance(entry, AttentionKind):
        raise ExperimentError(_no_entry(params.choice, entry))
    return entry


def _no_entry(name: str, entry: Choice) -> str:
    made = getattr(entry.build, "__name__", "...")
    costs = [f.name for f in fields(AttentionKind) if f.kw_only and f.default is MISSING]
    said = ", ".join(f"{cost}=..." for cost in costs)
    return (
        f"attention: ATTENTION[{name!r}] says nothing of what it costs; make it "
        f"sw.AttentionKind({made}, {said}), as CONTRIBUTING.md shows"
    )


def build_attention(shape: AttentionShape, params: Params) -> nn.Module:
    """The attention module of one block."""
    module: nn.Module = kind_of(params).build(shape, params)
    return module


def check_attention(rack: RackShape, params: Params) -> list[str]:
    """What is wrong with an attention kind on the blocks of this rack, one line per problem."""
    entry = find(ATTENTION, params.choice, "attention")
    if not isinstance(entry, AttentionKind):
        return [_no_entry(params.choice, entry)]
    blocks = range(min(cycle(rack), total_blocks(rack)))
    shapes = dict.fromkeys(attention_shape(rack, block) for block in blocks)
    return list(dict.fromkeys(line for shape in shapes for line in entry.check(shape, params)))
