"""Linear attention: the weight of a key is phi(q) . phi(k) with phi(x) = elu(x) + 1.

Source: Katharopoulos et al. (arXiv 2006.16236, equations 4 to 7). Each number's feature is its own,
and positive: so are all weights, and they sum to one. Nothing is added to their sum, and no maximum
is taken over keys: what a token gets depends on no later one. RoPE turns queries and keys before
their features are taken, which keeps weights positive; they are no function of the distance then.

The sums are in `sums.py`. Shapes: H heads, E numbers per head, which are the features.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.attention.cached import Kept
from stackwise.model.attention.heads import Heads, qkv_linear, scored
from stackwise.model.attention.mha import most
from stackwise.model.attention.rope import rotary_of
from stackwise.model.attention.sums import (
    attend,
    attend_causal,
    attend_on,
    chunked,
    kept_sums,
    sum_flops,
    sums_at_once,
)
from stackwise.model.norm import RMSNorm, lean_on
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import AttentionShape
from stackwise.model.working import Working

# exp(-40) is 4e-18, under the rounding of any sum with a feature of order one, and its square is
# far over the least float32: a sum of weights is never zero.
LOWEST = -40.0


class Linear(Params):
    """Attention by sums of features elu(x) + 1."""

    kind: Literal["linear"] = "linear"
    chunk: int = Field(64, ge=1, le=4096, description="tokens per chunk of the causal form")


class LinearAttention(nn.Module):
    """Attention by features elu(x) + 1, causal or bidirectional."""

    def __init__(self, shape: AttentionShape, params: Linear) -> None:
        super().__init__()
        self.shape, self.params = shape, params
        self.qkv = qkv_linear(shape)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.d_model, bias=shape.bias)
        self.rotary = rotary_of(shape)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None

    def forward(self, x_BTD: Tensor, *, causal: bool) -> Tensor:
        """(B, T, D) to (B, T, D); token i sees j <= i if causal, else every j."""
        made = featured(self.heads(x_BTD))
        with torch.autocast(x_BTD.device.type, enabled=False):
            y_BHTE = attend_causal(*made, self.params.chunk) if causal else attend(*made)
        return self.out(y_BHTE.transpose(1, 2).flatten(2))

    def decode(self, x_BTD: Tensor, kept: Kept | None, seen: int) -> tuple[Tensor, Kept]:
        """What `forward` gives new tokens causally; kept is the sum over keys."""
        made = featured(self.heads(x_BTD, seen))
        with torch.autocast(x_BTD.device.type, enabled=False):
            state = None if kept is None else kept[0]
            y_BHTE, state = attend_on(*made, self.params.chunk, None, state, seen)
        return self.out(y_BHTE.transpose(1, 2).flatten(2)), (state,)

    def heads(self, x_BTD: Tensor, start: int = 0) -> Heads:
        """Queries, keys and values, of tokens from position `start` on."""
        return scored(self.qkv(x_BTD), self.shape, self.q_norm, self.k_norm, self.rotary, start)


def featured(heads: Heads) -> Heads:
    """Features of queries and keys, and values, at least in float32."""
    q_BHTE, k_BHTE, v_BHTE = heads
    wide = torch.promote_types(v_BHTE.dtype, torch.float32)
    return Heads(elu_plus_one(q_BHTE.to(wide)), elu_plus_one(k_BHTE.to(wide)), v_BHTE.to(wide))


def elu_plus_one(x: Tensor) -> Tensor:
    """X + 1 over zero, exp(x) under it, down to exp(-40); elu(x) + 1 would round to zero at -17."""
    if lean_on(x):
        return cast(Tensor, _EluPlusOne.apply(x))
    return x.clamp_min(0) + x.clamp(LOWEST, 0).exp()


class _EluPlusOne(torch.autograd.Function):
    """Its slope is min(phi, 1): nothing but phi is kept, which a product keeps anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()  # else the product would keep a copy of phi beside it
        phi = x.clamp(LOWEST, 0).exp_().add_(x.clamp_min(0))
        ctx.save_for_backward(phi)
        return phi

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (phi,) = ctx.saved_tensors
        return grad * phi.clamp_max(1)


def parameters(shape: AttentionShape, params: Linear) -> int:
    """Every trainable number of the sub-layer."""
    biases = 3 * shape.heads * shape.head_dim + shape.d_model
    norms = 2 * shape.head_dim * shape.qk_norm
    return matmul_parameters(shape, params) + biases * shape.bias + norms


def matmul_parameters(shape: AttentionShape, params: Linear) -> int:
    """Weights in matrix products."""
    return 4 * shape.d_model * shape.heads * shape.head_dim


def input_parameters(shape: AttentionShape, params: Linear) -> int:
    """Those whose product reads what the sub-layer is given: all but the output's."""
    return 3 * shape.d_model * shape.heads * shape.head_dim


def score_flops(shape: AttentionShape, params: Linear, length: int, causal: bool) -> Scores:
    """FLOPs per token, forward: sums over keys, queries on sums, pairs in a chunk."""
    wide = shape.head_dim
    return Scores(shape.heads * sum_flops(wide, wide, params.chunk, length, causal))


def saved_floats(
    shape: AttentionShape, params: Linear, length: int, causal: bool, trains: bool
) -> Saved:
    """Numbers per token that autograd keeps: what the sums keep, and what norms and weights read.

    Features that are filled up to the end of the last chunk are kept beside their function's own;
    QK-norm keeps the whole product that it read a part of.
    """
    wide = shape.head_dim
    _, filled = chunked(params.chunk, length, causal)
    each = kept_sums(wide, wide, params.chunk, length, causal) + 2 * wide * (filled > length)
    norms = (2 + 3 * wide) * shape.qk_norm
    return Saved(shape.heads * (each + norms), trains * (shape.d_model + shape.heads * wide))


def working_floats(
    shape: AttentionShape, params: Linear, length: int, causal: bool, low: bool, trains: bool
) -> Working:
    """Numbers per token held at once: making features, or summing; in float32 but for the cut."""
    heads, wide = shape.heads, shape.head_dim
    chunk, filled = chunked(params.chunk, length, causal)
    state = -(-wide * (wide + 1) // chunk)
    held = 3 * wide + -(-(2 * wide * (filled > length) + wide + 1) * filled // length)
    summing = max(2 * chunk * causal, 3 * (wide + 1) + 2 * state)
    kept = saved_floats(shape, params, length, causal, False)
    inside = sums_at_once(wide, wide, params.chunk, length, causal)
    cut = Saved(0, 3 * heads * wide)
    features = Saved(5 * heads * wide, 0).plus(cut) if low else Saved(7 * heads * wide, 0)
    turned = 2 * heads * wide * (1 + shape.qk_norm) * (shape.rope_base is not None or shape.qk_norm)
    return Working(
        forward=most(
            features,
            Saved(heads * (held + -(-summing * filled // length)), 0),
            cut.plus(Saved(turned * (1 + low), 0)),
            low=low,
        ),
        core=kept.plus(Saved(heads * (inside + wide * (1 + (filled > length))), heads * wide)),
        product=Saved(0, 6 * heads * wide + shape.d_model),
    )


def cache_floats(shape: AttentionShape, params: Linear) -> int:
    """Numbers per token in a cache: none, since the state does not grow with the text."""
    return 0


def state_floats(shape: AttentionShape, params: Linear) -> int:
    """Numbers of that state: the sum of key features times values, with the sum of features."""
    return shape.heads * shape.head_dim * (shape.head_dim + 1)


def check(shape: AttentionShape, params: Linear) -> list[str]:
    """What `linear` cannot be combined with."""
    found = []
    if shape.kv_heads != shape.heads:
        found.append(
            "attention: linear has one key head per query head, but "
            f"rack.kv_heads={shape.kv_heads} and rack.heads={shape.heads}; "
            "leave kv_heads empty or use attention=gqa"
        )
    if shape.window is not None:
        found.append(
            f"attention: linear sums over all tokens, but rack.window={shape.window}; "
            "leave window empty or use attention=window"
        )
    return found
