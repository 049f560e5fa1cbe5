"""Multi-query attention: one key and value head, which all query heads share.

It is `gqa` with one group, to the bit, and has no group to choose: `rack.kv_heads` stays empty.

Source: Shazeer (arXiv 1911.02150).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar

from stackwise.choice import Params
from stackwise.model.attention import mha
from stackwise.model.attention.mha import SoftmaxAttention
from stackwise.model.shape import AttentionShape

T = TypeVar("T")


class Mqa(Params):
    """All query heads share one key and value head."""

    kind: Literal["mqa"] = "mqa"


def shaped(shape: AttentionShape, params: Params) -> AttentionShape:
    """The shape with one key and value head."""
    return replace(shape, kv_heads=1)


def _with_one(function: Callable[..., T]) -> Callable[..., T]:
    """A function of a shape, of that with one key and value head."""

    def of(shape: AttentionShape, params: Params, *rest: Any) -> T:
        return function(shaped(shape, params), params, *rest)

    return of


build = _with_one(SoftmaxAttention)
parameters = _with_one(mha.parameters)
matmul_parameters = _with_one(mha.matmul_parameters)
input_parameters = _with_one(mha.input_parameters)
score_flops = _with_one(mha.score_flops)
saved_floats = _with_one(mha.saved_floats)
working_floats = _with_one(mha.working_floats)
cache_floats = _with_one(mha.cache_floats)


def check(shape: AttentionShape, params: Params) -> list[str]:
    """Groups that were asked for are `gqa`, and are asked for by that name."""
    if shape.kv_heads == 1 or not shape.kv_heads_given:
        return []
    return [
        f"attention: mqa has one key head for all query heads, but rack.kv_heads={shape.kv_heads}; "
        "leave kv_heads empty or use attention=gqa"
    ]
