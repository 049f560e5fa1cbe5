"""Softmax attention with one key head per query head (`mha`) or per group of them (`gqa`).

Source: Vaswani et al. (arXiv 1706.03762); grouped queries, Ainslie et al. (arXiv 2305.13245).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackwise.choice import Params
from stackwise.model.attention.rope import Rotary
from stackwise.model.norm import RMSNorm
from stackwise.model.saved import Saved
from stackwise.model.shape import AttentionShape


class Mha(Params):
    """Every query head has keys and values of its own."""

    kind: Literal["mha"] = "mha"


class Gqa(Params):
    """Groups of query heads share keys and values; `rack.kv_heads` says how many groups."""

    kind: Literal["gqa"] = "gqa"


class SoftmaxAttention(nn.Module):
    """Scaled dot-product attention over all tokens, or a window, in either direction."""

    def __init__(self, shape: AttentionShape, params: Params) -> None:
        super().__init__()
        self.shape = shape
        wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q = nn.Linear(shape.d_model, wide, bias=shape.bias)
        self.k = nn.Linear(shape.d_model, narrow, bias=shape.bias)
        self.v = nn.Linear(shape.d_model, narrow, bias=shape.bias)
        self.out = nn.Linear(wide, shape.d_model, bias=shape.bias)
        self.rotary = (
            Rotary(shape.head_dim, shape.rope_base, shape.rope_scaling)
            if shape.rope_base is not None
            else None
        )
        self.q_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None
        self.k_norm = RMSNorm(shape.head_dim, shape.norm_eps) if shape.qk_norm else None

    def forward(self, x_BTD: Tensor, *, causal: bool) -> Tensor:
        """(B, T, D) to (B, T, D); token i sees j <= i if causal, else every j in its window."""
        q_BHTE = self._heads(self.q(x_BTD), self.q_norm)
        k_BHTE = self._heads(self.k(x_BTD), self.k_norm)
        v_BHTE = self._heads(self.v(x_BTD))
        if self.rotary is not None:
            q_BHTE, k_BHTE = self.rotary(q_BHTE), self.rotary(k_BHTE)
        mask_TT = window_mask(x_BTD.shape[1], self.shape.window, causal, x_BTD.device)
        y_BHTE = F.scaled_dot_product_attention(
            q_BHTE,
            k_BHTE,
            v_BHTE,
            attn_mask=mask_TT,
            is_causal=causal and mask_TT is None,
            enable_gqa=self.shape.kv_heads < self.shape.heads,
        )
        return self.out(y_BHTE.transpose(1, 2).flatten(2))

    def _heads(self, x_BTF: Tensor, norm: nn.Module | None = None) -> Tensor:
        x_BTHE = x_BTF.unflatten(-1, (-1, self.shape.head_dim))
        return (x_BTHE if norm is None else norm(x_BTHE)).transpose(1, 2)


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


def score_flops(shape: AttentionShape, params: Params, length: int, causal: bool) -> float:
    """FLOPs per token, forward, of queries on keys and of weights on values.

    Counted dense, 4 T H E, as kernels and papers count it, also where a mask hides some.
    """
    return 4.0 * length * shape.heads * shape.head_dim


def saved_floats(shape: AttentionShape, params: Params, trains: bool) -> Saved:
    """Numbers per token that autograd keeps: queries, keys, values, output, log-sum-exp.

    A weight that trains keeps its input; QK-norm keeps what it read and one number per head.
    """
    heads = shape.heads + shape.kv_heads
    norms = heads * (1 + shape.head_dim) * shape.qk_norm
    kept = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    return Saved(full=norms + shape.heads, compute=kept + shape.d_model * trains)


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
