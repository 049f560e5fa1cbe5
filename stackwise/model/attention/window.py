"""Softmax attention to near tokens only, in time and memory that grow linearly with the text.

Every token sees `attention.window` tokens to each side (Longformer, arXiv 2004.05150, section 3.1),
or to the left alone. A text is cut into chunks of queries, each of which is compared with its span:
its own tokens and a window to each side that is seen. All but the ends are one call. The spans of
the first and last queries lie inside the text, too, so that a token costs the same whatever the
length. Exact: `tests/unit/test_windows_see_what_they_say.py`.

`rack.window` is another thing: a mask over all pairs, for the kinds that have them, which hides
tokens and saves nothing; as imported models have it, whose windows differ from block to block.

Shapes: G key heads, C queries per chunk, S tokens of its span, N chunks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from stackwise.choice import Params
from stackwise.model.attention import mha
from stackwise.model.attention.mha import SoftmaxAttention
from stackwise.model.saved import Saved
from stackwise.model.scores import Scores
from stackwise.model.shape import AttentionShape
from stackwise.model.working import Working

LEAST = 64  # queries per chunk: shorter ones cost more in calls than they save in products


class Window(Params):
    """Softmax attention to near tokens; keys in groups as in `gqa`."""

    kind: Literal["window"] = "window"
    window: int = Field(64, ge=1, le=1 << 20, description="tokens seen to each side")


def shaped(shape: AttentionShape, params: Window) -> AttentionShape:
    """The shape with the kind's own window."""
    return replace(shape, window=params.window)


def build(shape: AttentionShape, params: Window) -> SoftmaxAttention:
    """The module: `mha`'s, which attends by spans."""
    return SoftmaxAttention(shaped(shape, params), params, attend_near)


def spans(window: int, causal: bool) -> tuple[int, int]:
    """C and S: queries per chunk, and the tokens that they are compared with."""
    chunk = max(window, LEAST)
    return chunk, chunk + window * (1 if causal else 2)


def attend_near(
    q_BHTE: Tensor, k_BGTE: Tensor, v_BGTE: Tensor, *, causal: bool, window: int
) -> Tensor:
    """softmax(q k / sqrt E) v over |i - j| <= window, and j <= i if causal: (B, H, T, E)."""
    length = q_BHTE.shape[-2]
    chunk, span = spans(window, causal)
    if length < span:
        return mha.attend(q_BHTE, k_BGTE, v_BGTE, causal=causal, window=window)
    whole = (length - (0 if causal else window)) // chunk * chunk  # tokens of whole chunks
    tensors = (q_BHTE, k_BGTE, v_BGTE)
    parts = [_end(tensors, range(chunk), range(span), window, causal)]
    if whole > chunk:
        parts.append(_middle(tensors, range(chunk, whole), window, causal))
    if whole < length:
        last = range(length - span, length)
        parts.append(_end(tensors, range(whole, length), last, window, causal))
    return torch.cat(parts, dim=1).transpose(1, 2)


def _end(
    tensors: tuple[Tensor, Tensor, Tensor], queries: range, keys: range, window: int, causal: bool
) -> Tensor:
    """A chunk at an end of the text, (B, C, H, E). Copies, so that autograd keeps no more."""
    q_BHCE, k_BGSE, v_BGSE = (
        x[:, :, places.start : places.stop].clone(memory_format=torch.contiguous_format)
        for x, places in zip(tensors, (queries, keys, keys), strict=True)
    )
    ahead = queries.start - keys.start
    mask_CS = _band(len(queries), len(keys), ahead, window, causal, q_BHCE.device)
    return _softmax(q_BHCE, k_BGSE, v_BGSE, mask_CS)


def _middle(
    tensors: tuple[Tensor, Tensor, Tensor], queries: range, window: int, causal: bool
) -> Tensor:
    """All chunks between, whose spans reach a window to the left of them: (B, N C, H, E)."""
    q_BHTE, k_BGTE, v_BGTE = tensors
    chunk, span = spans(window, causal)
    keys = slice(queries.start - window, queries.stop + (0 if causal else window))
    chunks = (
        q_BHTE[:, :, queries.start : queries.stop].unfold(2, chunk, chunk),
        k_BGTE[:, :, keys].unfold(2, span, chunk),
        v_BGTE[:, :, keys].unfold(2, span, chunk),
    )
    q_BNHCE, k_BNGSE, v_BNGSE = (
        x_BHNEC.permute(0, 2, 1, 4, 3).clone(memory_format=torch.contiguous_format)
        for x_BHNEC in chunks
    )
    mask_CS = _band(chunk, span, window, window, causal, q_BHTE.device)
    y = _softmax(q_BNHCE.flatten(0, 1), k_BNGSE.flatten(0, 1), v_BNGSE.flatten(0, 1), mask_CS)
    return y.unflatten(0, q_BNHCE.shape[:2]).flatten(1, 2)


def _softmax(q_BHCE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor, mask_CS: Tensor) -> Tensor:
    """One call: (B, C, H, E)."""
    grouped = k_BGSE.shape[1] < q_BHCE.shape[1]
    y_BHCE = F.scaled_dot_product_attention(
        q_BHCE, k_BGSE, v_BGSE, attn_mask=mask_CS, enable_gqa=grouped
    )
    return y_BHCE.transpose(1, 2)


def _band(
    queries: int, keys: int, ahead: int, window: int, causal: bool, device: torch.device
) -> Tensor:
    """True where a query sees a key of its span; the first query stands `ahead` keys into it."""
    place_C = torch.arange(ahead, ahead + queries, device=device)
    ahead_CS = torch.arange(keys, device=device)[None, :] - place_C[:, None]
    seen_CS = ahead_CS >= -window
    return seen_CS & (ahead_CS <= (0 if causal else window))


def score_flops(shape: AttentionShape, params: Window, length: int, causal: bool) -> Scores:
    """FLOPs per token, forward, of queries on keys and of weights on values, over a whole span."""
    _, span = spans(params.window, causal)
    return Scores(4.0 * min(length, span) * shape.heads * shape.head_dim)


def saved_floats(
    shape: AttentionShape, params: Window, length: int, causal: bool, trains: bool
) -> Saved:
    """Numbers per token that autograd keeps: as in `mha`, with keys and values once per span.

    The output of each call is kept beside the whole, which a weight that trains keeps; QK-norm
    keeps the values beside the copies. Masks, of a chunk's queries on its span, are left out.
    """
    kept = mha.saved_floats(shape, params, length, causal, trains)
    return kept.plus(Saved(0, _beside(shape, params, length, causal, trains)))


def _beside(shape: AttentionShape, params: Window, length: int, causal: bool, trains: bool) -> int:
    """Numbers per token that the calls keep beyond one of queries, keys, values and output."""
    chunk, span = spans(params.window, causal)
    if length < span:
        return 0
    whole = (length - (0 if causal else params.window)) // chunk
    calls = whole + (whole * chunk < length)
    values = shape.kv_heads * shape.head_dim
    copies = -(-(calls * span - length) * 2 * values // length) + values * shape.qk_norm
    return copies + trains * shape.heads * shape.head_dim


def working_floats(
    shape: AttentionShape, params: Window, length: int, causal: bool, low: bool, trains: bool
) -> Working:
    """Numbers per token held at once: as in `mha` without a window, with the copies in spans."""
    _, span = spans(params.window, causal)
    if length < span:
        return mha.working_floats(shaped(shape, params), params, length, causal, low, trains)
    plain = mha.working_floats(replace(shape, window=None), params, length, causal, low, trains)
    beside = _beside(shape, params, length, causal, False)
    output = shape.heads * shape.head_dim
    return Working(
        forward=plain.forward.plus(Saved(0, beside + output)),
        core=plain.core.plus(Saved(0, beside + 3 * output)),
        product=plain.product,
    )


def check(shape: AttentionShape, params: Window) -> list[str]:
    """A rack that has windows of its own."""
    if shape.window is None:
        return []
    return [
        f"attention: window sees attention.window={params.window} tokens to each side, but "
        f"rack.window={shape.window}; leave rack.window empty or use attention=gqa"
    ]
