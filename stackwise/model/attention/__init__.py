"""Attention kinds: one file each, one entry in `ATTENTION`.

An entry pairs the parameters and the module of a kind with the arithmetic of its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import Tensor, nn

from stackwise.choice import Choice, Params, find
from stackwise.errors import ExperimentError
from stackwise.model.attention import kernel, linear, mha, mla, mqa, window
from stackwise.model.attention.cached import Kept
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


def no_state(shape: AttentionShape, params: Params) -> int:
    """The state of a kind that keeps each token by itself."""
    return 0


def as_given(shape: AttentionShape, params: Params) -> AttentionShape:
    """The shape that a kind works on, where its parameters decide nothing of it."""
    return shape


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
        state_floats: Numbers of a running state that a decoder keeps of a sample, however long the
            text; as a rule in float32.
        decode: (layer, x_BTD, kept, seen) to the output at new tokens, causal, and what to keep:
            see `cached.py`. None: text is read again from its beginning for each new token.
        decode_flops: (shape, params, new tokens, tokens seen) to FLOPs per new token, of other
            products than those with weights, of `decode` where something is kept. None: not known.
        blocks: Whether the layer reads rows block by block, too (`model/direction.py`); `decode`
            then takes `together=True` for new tokens that see each other.
        shaped: The shape as the layer works on it, where the kind's parameters decide some of it.
    """

    parameters: Callable[[AttentionShape, Any], int]
    matmul_parameters: Callable[[AttentionShape, Any], int]
    input_parameters: Callable[[AttentionShape, Any], int]
    score_flops: Callable[[AttentionShape, Any, int, Any], Scores]
    saved_floats: Callable[[AttentionShape, Any, int, Any, bool], Saved]
    working_floats: Callable[[AttentionShape, Any, int, Any, bool, bool], Working]
    cache_floats: Callable[[AttentionShape, Any], int]
    check: Callable[[AttentionShape, Any], list[str]] = no_problems
    state_floats: Callable[[AttentionShape, Any], int] = no_state
    decode: Callable[[Any, Tensor, Kept | None, int], tuple[Tensor, Kept]] | None = None
    decode_flops: Callable[[AttentionShape, Any, int, int], float] | None = None
    blocks: bool = False
    shaped: Callable[[AttentionShape, Any], AttentionShape] = as_given


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
        blocks=True,
        decode=mha.SoftmaxAttention.decode,
        decode_flops=mha.decode_flops,
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
        blocks=True,
        decode=mha.SoftmaxAttention.decode,
        decode_flops=mha.decode_flops,
    ),
    "mqa": AttentionKind(
        mqa.build,
        mqa.Mqa,
        parameters=mqa.parameters,
        matmul_parameters=mqa.matmul_parameters,
        input_parameters=mqa.input_parameters,
        score_flops=mqa.score_flops,
        saved_floats=mqa.saved_floats,
        working_floats=mqa.working_floats,
        cache_floats=mqa.cache_floats,
        check=mqa.check,
        blocks=True,
        decode=mha.SoftmaxAttention.decode,
        decode_flops=mha.decode_flops,
        shaped=mqa.shaped,
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
        blocks=True,
        decode=mla.LatentAttention.decode,
        decode_flops=mla.decode_flops,
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
        state_floats=kernel.state_floats,
        decode=kernel.KernelAttention.decode,
        decode_flops=lambda shape, params, new, seen: (
            kernel.score_flops(shape, params, new, True).forward
        ),
    ),
    "linear": AttentionKind(
        linear.LinearAttention,
        linear.Linear,
        parameters=linear.parameters,
        matmul_parameters=linear.matmul_parameters,
        input_parameters=linear.input_parameters,
        score_flops=linear.score_flops,
        saved_floats=linear.saved_floats,
        working_floats=linear.working_floats,
        cache_floats=linear.cache_floats,
        check=linear.check,
        state_floats=linear.state_floats,
        decode=linear.LinearAttention.decode,
        decode_flops=lambda shape, params, new, seen: (
            linear.score_flops(shape, params, new, True).forward
        ),
    ),
    "window": AttentionKind(
        window.build,
        window.Window,
        parameters=mha.parameters,
        matmul_parameters=mha.matmul_parameters,
        input_parameters=mha.input_parameters,
        score_flops=window.score_flops,
        saved_floats=window.saved_floats,
        working_floats=window.working_floats,
        cache_floats=mha.cache_floats,
        check=window.check,
        decode=mha.SoftmaxAttention.decode,
        decode_flops=mha.decode_flops,
        shaped=window.shaped,
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
