"""The shape of a rack: numbers only, from which every size follows.

`RackShape` is the `rack` section of an experiment. What can be derived from it is a function here
and is never stored. What the layers compute is in `block.py` and `attention/`; how many
parameters a shape has is in `count.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal, Self

from pydantic import Field, model_validator

from stackwise.choice import Section, unread


class Llama3Scaling(Section):
    """How Llama 3.1 and later stretch RoPE beyond the length they were first trained at."""

    factor: float = Field(32.0, gt=1, description="stretch of the longest wavelengths")
    low: float = Field(1.0, gt=0, description="wavelengths over length/low are stretched fully")
    high: float = Field(4.0, gt=0, description="wavelengths under length/high are left alone")
    original: int = Field(8192, gt=0, description="length of the first training, in tokens")


class RackShape(Section):
    """Sizes and options of the whole rack."""

    newer = frozenset({"depth_base", "spectral_norm", "frozen_up", "time", "time_width"})

    stacks: int = Field(4, ge=1, le=1024, description="stacks in the finished rack")
    blocks_per_stack: int = Field(2, ge=1, le=1024, description="blocks in each stack")
    d_model: int = Field(128, ge=2, le=65536, description="width of the residual stream")
    heads: int = Field(4, ge=1, le=1024, description="query heads of each block")
    kv_heads: int | None = Field(
        None, ge=1, le=1024, description="key and value heads; empty: as many as query heads"
    )
    head_dim: int | None = Field(
        None, ge=1, le=1024, description="numbers per head; empty: d_model / heads"
    )
    d_ff: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="width of the feed-forward; empty: 8/3 d_model up to a multiple of 32 "
        "(swiglu), 4 d_model (gelu)",
    )
    vocab: int | None = Field(
        None, ge=2, le=1 << 22, description="entries of the head; empty: the tokenizer's size"
    )
    tied: bool = Field(False, description="the head reads the token table instead of its own")
    ffn: Literal["swiglu", "gelu", "gelu_tanh"] = Field("swiglu", description="feed-forward kind")
    norm: Literal["rmsnorm", "layernorm"] = Field("rmsnorm", description="normalisation kind")
    norm_eps: float = Field(1e-5, gt=0, lt=1, description="added to the variance")
    norm_place: Literal["pre", "post"] = Field(
        "pre", description="norm before each sub-layer (and one at the end), or after its residual"
    )
    bias: bool = Field(False, description="biases on every linear layer of the blocks")
    positions: Literal["rope", "learned", "none"] = Field("rope", description="position signal")
    max_positions: int | None = Field(
        None, ge=1, le=1 << 24, description="rows of the learned position table"
    )
    rope_base: float | tuple[float, ...] = Field(
        10_000.0, description="RoPE base; a list is cycled over the blocks"
    )
    rope_scaling: Llama3Scaling | None = Field(None, description="stretch of RoPE; empty: none")
    window: int | tuple[int | None, ...] | None = Field(
        None,
        description="a token sees this many tokens to each side; empty: all; a list is cycled",
    )
    qk_norm: bool = Field(False, description="RMSNorm on queries and keys, per head")
    residual_gain: float = Field(
        1.0, gt=0, le=10, description="factor on what each sub-layer adds to the residual"
    )
    depth_base: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="CompleteP: blocks of the rack at which rates were tuned; what each sub-layer "
        "adds is scaled by this over the finished rack's blocks; empty: no scaling",
    )
    spectral_norm: bool = Field(
        False, description="every matrix of the blocks is kept at a largest singular value of one"
    )
    token_types: int = Field(0, ge=0, le=16, description="rows of BERT's token-type table")
    embed_norm: bool = Field(False, description="LayerNorm right after the embeddings (BERT)")
    head_transform: bool = Field(
        False, description="dense, activation, norm before the head (BERT)"
    )
    head_bias: bool = Field(False, description="a bias per vocabulary entry (BERT)")
    frozen_up: bool = Field(
        False,
        description="up and gate of the feed-forward never train: they stay as they start",
    )
    time: Literal["none", "sinusoidal", "learned"] = Field(
        "none",
        description="time-as-input: every block reads its sample's noise level through its norms, "
        "by features of it (sinusoidal) or a table (learned)",
    )
    time_width: int = Field(
        64, ge=2, le=4096, description="features of the noise level, or rows of its table"
    )
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of new weights")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = list(shape_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self


def shape_problems(shape: RackShape) -> list[str]:
    """What is wrong with sizes that are each in range: `field: value rule; way out`."""
    found = []
    if shape.head_dim is None and shape.d_model % shape.heads:
        found.append(
            f"heads: {shape.heads} does not divide d_model={shape.d_model}; "
            f"{_dividing(shape)} or give head_dim"
        )
    if shape.kv_heads is not None and shape.heads % shape.kv_heads:
        found.append(
            f"kv_heads: {shape.kv_heads} does not divide heads={shape.heads}; "
            "every key head serves the same number of query heads"
        )
    if shape.positions == "learned" and shape.max_positions is None:
        found.append("max_positions: needed with positions=learned; give the longest sequence")
    other = ("rope_base", "rope_scaling") if shape.positions != "rope" else ()
    for key in (*other, *(() if shape.positions == "learned" else ("max_positions",))):
        found += unread(shape, key, f"positions={shape.positions}")
    if shape.time == "none":
        found += unread(shape, "time_width", "time=none")
    if shape.time == "sinusoidal" and shape.time_width % 2:
        found.append(
            f"time_width: {shape.time_width} must be even with time=sinusoidal, which has cosines "
            f"and sines; use {shape.time_width + 1}"
        )
    bases = shape.rope_base if isinstance(shape.rope_base, tuple) else (shape.rope_base,)
    if not bases or any(base <= 1 for base in bases):
        found.append(f"rope_base: {shape.rope_base} must be over 1; 10000 is usual")
    windows = shape.window if isinstance(shape.window, tuple) else (shape.window,)
    if not windows or any(w is not None and w < 1 for w in windows):
        found.append(f"window: {shape.window} must be 1 or more; leave it empty for all")
    if shape.positions == "rope" and not found and head_dim(shape) % 2:
        found.append(f"head_dim: {head_dim(shape)} must be even, since RoPE turns pairs")
    return found


def _dividing(shape: RackShape) -> str:
    """Heads near those asked for that divide the width, or else a width near that they divide."""
    grain = 2 if shape.positions == "rope" else 1  # RoPE turns pairs
    near = [h for h in range(1, 2 * shape.heads) if shape.d_model % (grain * h) == 0]
    near = [h for h in near if 2 * h >= shape.heads]
    if near:
        return f"use {min(near, key=lambda h: abs(h - shape.heads))}"
    step = grain * shape.heads
    return f"use d_model={max(1, round(shape.d_model / step)) * step}"


def total_blocks(shape: RackShape) -> int:
    """Blocks in the finished rack."""
    return shape.stacks * shape.blocks_per_stack


def stack_ids(shape: RackShape) -> tuple[str, ...]:
    """The ids of the finished rack's stacks, left to right: `s0`, `s1`, ..."""
    return _ids(shape.stacks)


@cache  # a plan asks for them a hundred thousand times
def _ids(stacks: int) -> tuple[str, ...]:
    return tuple(f"s{i}" for i in range(stacks))


def depth_factor(shape: RackShape) -> float:
    """CompleteP's L_base / L, with the blocks of the finished rack for L; 1 where it is off.

    L is fixed from the first stage on, so that growth rescales nothing. Residuals are scaled by it
    and so is Adam's epsilon in the blocks, since their gradients are; learning rates and the width
    of random starts do not depend on L (alpha = 1, table 1 of arXiv 2505.01618).
    """
    return 1.0 if shape.depth_base is None else shape.depth_base / total_blocks(shape)


def residual_factor(shape: RackShape) -> float:
    """What each sub-layer's output is multiplied by before it is added: gain and depth factor."""
    return shape.residual_gain * depth_factor(shape)


def cycle(shape: RackShape) -> int:
    """After how many blocks the lists of the shape begin anew: block k is like block k + cycle."""
    listed = (shape.rope_base, shape.window)
    return math.lcm(*(len(each) for each in listed if isinstance(each, tuple)))


def head_dim(shape: RackShape) -> int:
    """Numbers per head."""
    return shape.head_dim or shape.d_model // shape.heads


def kv_heads(shape: RackShape) -> int:
    """Key and value heads."""
    return shape.kv_heads or shape.heads


def d_ff(shape: RackShape) -> int:
    """Width of the feed-forward."""
    if shape.d_ff is not None:
        return shape.d_ff
    if shape.ffn == "swiglu":
        return -(-8 * shape.d_model // 3 // 32) * 32
    return 4 * shape.d_model


@dataclass(frozen=True)
class AttentionShape:
    """What one block's attention needs to know of the rack.

    Attributes:
        d_model: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Numbers per head.
        bias: Whether the linear layers have biases.
        qk_norm: Whether queries and keys are normalised per head.
        norm_eps: Epsilon of that norm.
        rope_base: RoPE base of this block; None without RoPE.
        rope_scaling: Stretch of RoPE, if any.
        window: Tokens seen to each side; None for all.
        kv_heads_given: Whether `rack.kv_heads` says how many, or was left empty.
    """

    d_model: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool
    qk_norm: bool
    norm_eps: float
    rope_base: float | None
    rope_scaling: Llama3Scaling | None
    window: int | None
    kv_heads_given: bool = False


def attention_shape(shape: RackShape, block: int) -> AttentionShape:
    """The attention shape of block number `block` of the whole rack (0 is the leftmost)."""
    bases = shape.rope_base if isinstance(shape.rope_base, tuple) else (shape.rope_base,)
    windows = shape.window if isinstance(shape.window, tuple) else (shape.window,)
    return AttentionShape(
        d_model=shape.d_model,
        heads=shape.heads,
        kv_heads=kv_heads(shape),
        head_dim=head_dim(shape),
        bias=shape.bias,
        qk_norm=shape.qk_norm,
        norm_eps=shape.norm_eps,
        rope_base=bases[block % len(bases)] if shape.positions == "rope" else None,
        rope_scaling=shape.rope_scaling,
        window=windows[block % len(windows)],
        kv_heads_given=shape.kv_heads is not None,
    )
