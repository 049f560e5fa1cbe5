"""Softmax attention with one key head per query head (`mha`) or per group of them (`gqa`).

Source: Vaswani et al. (arXiv 1706.03762); grouped queries, Ainslie et al. (arXiv 2305.13245).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.attention.cached import Kept, attend_kept, go_on
from stackwise.model.attention.heads import qkv_linear, scored
from stackwise.model.attention.rope import rotary_of
from stackwise.model.direction import BlockCausal, Direction, start_of
from stackwise.model.norm import RMSNorm
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import AttentionShape
from stackwise.model.working import Working

# Up to so many tokens torch's CPU kernel is faster in float32 than in bfloat16, whose backward
# takes 2.4 times as long at (32, 4, 128, 32) and no less until 512 (torch 2.13, AVX512-BF16).
SHORT = 256
MASK_BYTES = 17  # of a window, for each pair: how far ahead, its size, and whether it is seen


class Mha(Params):
    """Every query head has keys and values of its own."""

    kind: Literal["mha"] = "mha"


class Gqa(Params):
    """Groups of query heads share keys and values: `rack.kv_heads` groups; empty: one per head."""

    kind: Literal["gqa"] = "gqa"


class SoftmaxAttention(nn.Module):
    """Scaled dot-product attention over all tokens, or a window, in either direction.

    Args:
        shape: Its sizes; a window of it hides tokens.
        params: Of the kind; nothing of them is read.
        by: What compares queries with keys and sums values; None: `attend`.
    """

    def __init__(
        self,
        shape: AttentionShape,
        params: Params,
        by: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.attend = shape, attend if by is None else by
        self.qkv = qkv_linear(shape)
        self.out = nn.Linear(shape.heads * shape.head_dim, shape.d_model, bias=shape.bias)
        self.rotary = rotary_of(shape)
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None

    def forward(self, x_BTD: Tensor, *, causal: Direction) -> Tensor:
        """(B, T, D) to (B, T, D); token i sees j <= i if causal, else every j in its window.

        Rows that are read block by block see what the direction says (`model/direction.py`).
        """
        start = start_of(causal)
        q_BHTE, k_BGTE, v_BGTE = scored(
            self.qkv(x_BTD), self.shape, self.q_norm, self.k_norm, self.rotary, start
        )
        y_BHTE = self.attend(q_BHTE, k_BGTE, v_BGTE, causal=causal, window=self.shape.window)
        return self.out(y_BHTE.transpose(1, 2).flatten(2))

    def decode(
        self, x_BTD: Tensor, kept: Kept | None, seen: int, *, together: bool = False
    ) -> tuple[Tensor, Kept]:
        """What `forward` gives new tokens causally; kept are keys and values, as they are.

        With `together` new tokens are a block: they see each other, too.
        """
        window = self.shape.window
        q_BHTE, k_BGTE, v_BGTE = scored(
            self.qkv(x_BTD), self.shape, self.q_norm, self.k_norm, self.rotary, seen
        )
        (k_BGSE, v_BGSE), after = go_on(kept, (k_BGTE.to(v_BGTE.dtype), v_BGTE), window)
        if kept is None:
            y_BHTE = self.attend(q_BHTE, k_BGSE, v_BGSE, causal=not together, window=window)
        else:
            y_BHTE = attend_kept(q_BHTE, k_BGSE, v_BGSE, window, together)
        return self.out(y_BHTE.transpose(1, 2).flatten(2)), after


def attend(
    q_BHTE: Tensor,
    k_BGTE: Tensor,
    v_BGTE: Tensor,
    *,
    causal: Direction,
    window: int | None,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale q k) v, (B, H, T, E), over what each token may see; G divides H."""
    if isinstance(causal, BlockCausal):
        near = None if window is None or window >= causal.last_place else window
        mask_TT: Tensor | None = causal.bias(near, v_BGTE)
        q_BHTE, k_BGTE, causal = q_BHTE.to(v_BGTE.dtype), k_BGTE.to(v_BGTE.dtype), False
    else:
        mask_TT = window_mask(q_BHTE.shape[-2], window, causal, q_BHTE.device)
    causal = causal and mask_TT is None
    low = v_BGTE.dtype == torch.bfloat16 and v_BGTE.device.type == "cpu"
    if low and mask_TT is None and q_BHTE.shape[-2] <= SHORT:
        q_BHTE, k_BGTE = q_BHTE.to(v_BGTE.dtype), k_BGTE.to(v_BGTE.dtype)
        return cast(Tensor, _InFloat32.apply(q_BHTE, k_BGTE, v_BGTE, causal, scale))
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BGTE,
        v_BGTE,
        attn_mask=mask_TT,
        is_causal=causal,
        scale=scale,
        enable_gqa=k_BGTE.shape[1] < q_BHTE.shape[1],
    )


class _InFloat32(torch.autograd.Function):
    """torch's CPU kernel in float32, on bfloat16 tensors that are kept as they are."""

    @staticmethod
    def forward(
        ctx: Any,
        q_BHTE: Tensor,
        k_BGTE: Tensor,
        v_BGTE: Tensor,
        causal: bool,
        scale: float | None,
    ) -> Tensor:
        inputs = (q_BHTE, k_BGTE, v_BGTE)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        y_BHTE, log_sum_BHT = kernel(*(x.float() for x in inputs), 0.0, causal, scale=scale)
        y_BHTE = y_BHTE.to(v_BGTE.dtype)
        ctx.save_for_backward(*inputs, y_BHTE, log_sum_BHT)
        ctx.causal, ctx.scale = causal, scale
        return y_BHTE

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_BHTE: Tensor) -> tuple[Tensor | None, ...]:
        *kept, log_sum_BHT = ctx.saved_tensors
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        tensors = (x.float() for x in (grad_BHTE, *kept))
        grads = kernel(*tensors, log_sum_BHT, 0.0, ctx.causal, scale=ctx.scale)
        return *(grad.to(grad_BHTE.dtype) for grad in grads), None, None


def window_mask(
    length: int, window: int | None, causal: bool, device: torch.device
) -> Tensor | None:
    """True where token i (row) may see token j: |i - j| <= window, and j <= i if causal."""
    if window is None or window >= length - 1:
        return None
    place_T = torch.arange(length, device=device)
    ahead_TT = place_T[None, :] - place_T[:, None]
    seen_TT = ahead_TT.abs() <= window
    return seen_TT & (ahead_TT <= 0) if causal else seen_TT


def parameters(shape: AttentionShape, params: Params) -> int:
    """Every trainable number of the sub-layer."""
    biases = (shape.heads + 2 * shape.kv_heads) * shape.head_dim + shape.d_model
    norms = 2 * shape.head_dim * shape.qk_norm
    return matmul_parameters(shape, params) + biases * shape.bias + norms


def matmul_parameters(shape: AttentionShape, params: Params) -> int:
    """Weights in matrix products."""
    return shape.d_model * shape.head_dim * 2 * (shape.heads + shape.kv_heads)


def input_parameters(shape: AttentionShape, params: Params) -> int:
    """Those whose product reads what the sub-layer is given: all but the output's."""
    return shape.d_model * shape.head_dim * (shape.heads + 2 * shape.kv_heads)


def score_flops(shape: AttentionShape, params: Params, length: int, causal: Direction) -> Scores:
    """FLOPs per token, forward, of queries on keys and of weights on values.

    Counted dense, 4 T H E, as kernels and papers count it, also where a mask hides some.
    """
    return Scores(4.0 * length * shape.heads * shape.head_dim)


def decode_flops(shape: AttentionShape, params: Params, new: int, seen: int) -> float:
    """FLOPs per new token after `seen` kept ones: queries on all keys that are there, and weights.

    Dense, as above; of a window no more than its tokens are kept.
    """
    kept = seen if shape.window is None else min(seen, shape.window)
    return 4.0 * (kept + new) * shape.heads * shape.head_dim


def saved_floats(
    shape: AttentionShape, params: Params, length: int, causal: Direction, trains: bool
) -> Saved:
    """Numbers per token that autograd keeps: queries, keys, values, output, log-sum-exp.

    A weight that trains keeps its input; QK-norm keeps what it read and one number per head.
    """
    heads = shape.heads + shape.kv_heads
    norms = heads * (1 + shape.head_dim) * shape.qk_norm
    kept = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return Saved(full=norms + shape.heads, compute=kept + shape.d_model * trains)


def working_floats(
    shape: AttentionShape, params: Params, length: int, causal: Direction, low: bool, trains: bool
) -> Working:
    """Numbers per token held at once: `low` where products are in bfloat16.

    Short sequences are attended in float32 then, on copies of what is kept; queries and keys are
    turned and normalised in float32 always.
    """
    h, g = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    blocks = isinstance(causal, BlockCausal)
    masked = blocks or (shape.window is not None and shape.window < length - 1)
    copied = low and not masked and length <= SHORT
    turns, normal = shape.rope_base is not None, shape.qk_norm
    scored = (h + g) * (1 + normal) * (turns or normal)
    wide = Saved(2 * scored, 0) if low else Saved(0, scored + g * (scored > 0))
    cut = Saved(0, h + 2 * g)
    attended = Saved((2 * h + 2 * g) * copied + shape.heads, 2 * h + 2 * g)
    kept = Saved(shape.heads + normal * (h + g), 2 * h + 2 * g)
    core = kept.plus(Saved((4 * h + 4 * g) * copied, h + (h + 2 * g) * (not copied)))
    norms = Saved(4 * (h + g), h + 2 * g) if normal else Saved(0, 0)
    joined = Saved(2 * (h + g), h + 2 * g) if low and turns else Saved(0, 2 * (h + 2 * g))
    product = cut.plus(Saved(0, shape.d_model))
    return Working(
        forward=most(cut.plus(wide), attended, low=low),
        core=most(core, norms, joined, low=low),
        product=product,
        squares=MASK_BYTES * (masked and not blocks),  # block by block all layers share one
    )


def most(*counts: Saved, low: bool) -> Saved:
    """The one that takes the most bytes."""
    return max(counts, key=lambda count: count.bytes(2 if low else 4))


def cache_floats(shape: AttentionShape, params: Params) -> int:
    """Numbers per token in a KV cache."""
    return 2 * shape.kv_heads * shape.head_dim


def check_mha(shape: AttentionShape, params: Params) -> list[str]:
    """`mha` with fewer key heads than query heads is `gqa`, and is asked for by that name."""
    if shape.kv_heads == shape.heads:
        return []
    return [
        f"attention: mha has one key head per query head, but rack.kv_heads={shape.kv_heads} and "
        f"rack.heads={shape.heads}; use attention=gqa or leave kv_heads empty"
    ]
