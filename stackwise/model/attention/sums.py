"""Attention whose weights are products of features: sums over keys that all queries share.

With a weight phi(q) . phi(k), the sum over keys of phi(k) times v is taken once, whatever asks for
it, so that time and memory are linear in the number of tokens (arXiv 2006.16236). Values get a
column of ones, whose weighted sum is the sum of weights. What the features are is the business of
`kernel.py` and `linear.py`.

Shapes: H heads, E numbers per head, M features, C tokens per chunk, N chunks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q_BHTM: Tensor, k_BHTM: Tensor, v_BHTE: Tensor, floor: float | None = None) -> Tensor:
    """Every token sees every token: (B, H, T, E).

    Args:
        q_BHTM: Features of queries.
        k_BHTM: Features of keys.
        v_BHTE: Values.
        floor: The least sum of weights, for each token seen; None where no weight is negative.
    """
    state_BHME = k_BHTM.mT @ _with_ones(v_BHTE)
    sums_BHTE = q_BHTM @ state_BHME
    return _divided(sums_BHTE, sums_BHTE.new_tensor(k_BHTM.shape[-2]), floor)


def attend_causal(
    q_BHTM: Tensor, k_BHTM: Tensor, v_BHTE: Tensor, chunk: int, floor: float | None = None
) -> Tensor:
    """Token i sees j <= i: (B, H, T, E), in time and memory linear in T.

    Inside a chunk all pairs are compared; what comes before it is one sum of key features times
    values.
    """
    sums_BHTE, *_ = _sums(q_BHTM, k_BHTM, v_BHTE, chunk, None)
    return _divided(sums_BHTE, _seen(sums_BHTE, 0), floor)


def attend_on(
    q_BHTM: Tensor,
    k_BHTM: Tensor,
    v_BHTE: Tensor,
    chunk: int,
    floor: float | None,
    state_BHME: Tensor | None,
    seen: int,
) -> tuple[Tensor, Tensor]:
    """The same where text goes on: `attend_causal` of all tokens, at the new ones.

    Args:
        q_BHTM: Features of queries of the new tokens.
        k_BHTM: Of their keys.
        v_BHTE: Their values.
        chunk: Tokens per chunk.
        floor: As in `attend`.
        state_BHME: The sum over the tokens before, (B, H, M, E + 1); None for none.
        seen: How many these are.

    Returns:
        (B, H, T, E) of the new tokens, and the sum over all.
    """
    sums_BHTE, before_BHNME, own_BHNME = _sums(q_BHTM, k_BHTM, v_BHTE, chunk, state_BHME)
    after_BHME = before_BHNME[:, :, -1] + own_BHNME[:, :, -1]
    return _divided(sums_BHTE, _seen(sums_BHTE, seen), floor), after_BHME


def _sums(
    q_BHTM: Tensor, k_BHTM: Tensor, v_BHTE: Tensor, chunk: int, state_BHME: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted sums at each token, and over keys before each chunk and in it."""
    length = q_BHTM.shape[-2]
    chunk = min(chunk, length)
    q_BHNCM, k_BHNCM = _chunks(q_BHTM, chunk), _chunks(k_BHTM, chunk)
    v_BHNCE = _chunks(_with_ones(v_BHTE), chunk)
    near_BHNCE = (q_BHNCM @ k_BHNCM.mT).tril() @ v_BHNCE
    own_BHNME = k_BHNCM.mT @ v_BHNCE
    before_BHNME = F.pad(own_BHNME[:, :, :-1].cumsum(2), (0, 0, 0, 0, 1, 0))
    if state_BHME is not None:
        before_BHNME = before_BHNME + state_BHME[:, :, None]
    sums_BHTE = (near_BHNCE + q_BHNCM @ before_BHNME).flatten(2, 3)[:, :, :length]
    return sums_BHTE, before_BHNME, own_BHNME


def _with_ones(v_BHTE: Tensor) -> Tensor:
    """Values with a column of ones, whose weighted sum is the sum of weights."""
    return F.pad(v_BHTE, (0, 1), value=1.0)


def _chunks(x_BHTF: Tensor, chunk: int) -> Tensor:
    """(B, H, T, F) to (B, H, N, C, F), with zeros after the end."""
    missing = -x_BHTF.shape[-2] % chunk
    padded_BHTF = F.pad(x_BHTF, (0, 0, 0, missing)) if missing else x_BHTF
    return padded_BHTF.unflatten(2, (-1, chunk))


def _seen(like_BHTE: Tensor, before: int) -> Tensor:
    """How many tokens each one sees, (T, 1), where so many came before the first."""
    ends = (before + 1, before + like_BHTE.shape[-2] + 1)
    return torch.arange(*ends, dtype=like_BHTE.dtype, device=like_BHTE.device)[:, None]


def _divided(sums_BHTE: Tensor, seen: Tensor, floor: float | None) -> Tensor:
    """Weighted sums of values over the sum of weights, at least `floor` per token seen."""
    weights_BHT1 = sums_BHTE[..., -1:]
    if floor is not None:
        weights_BHT1 = weights_BHT1.maximum(floor * seen)
    return sums_BHTE[..., :-1] / weights_BHT1


def chunked(chunk: int, length: int, causal: bool) -> tuple[int, int]:
    """Tokens that share a sum over keys, and all tokens once the last chunk is filled up."""
    chunk = min(chunk, length) if causal else length
    return chunk, -(-length // chunk) * chunk


def sum_flops(features: int, wide: int, chunk: int, length: int, causal: bool) -> float:
    """FLOPs per token and head, forward: sums over keys, queries on sums, and pairs in a chunk.

    Args:
        features: M.
        wide: E.
        chunk: Tokens per chunk of the causal form.
        length: T.
        causal: Whether no token sees a later one.
    """
    each = 4.0 * features * (wide + 1)
    if not causal:
        return each
    chunk, filled = chunked(chunk, length, causal)
    return (each + 2.0 * chunk * (features + wide + 1)) * (filled / length)


def kept_sums(features: int, wide: int, chunk: int, length: int, causal: bool) -> int:
    """Numbers per token and head that autograd keeps, up to the next whole one.

    Features, values with ones, sums over keys and of values; causal also the pairs in a chunk, and
    sums for each chunk, to the end of the last one.
    """
    chunk, filled = chunked(chunk, length, causal)
    state = -(-features * (wide + 1) // chunk)
    return -(-(2 * (features + wide + 1) + chunk * causal + state) * filled // length)


def sums_at_once(features: int, wide: int, chunk: int, length: int, causal: bool) -> int:
    """Numbers per token and head that are made between features and the sums of values."""
    chunk, filled = chunked(chunk, length, causal)
    state = -(-features * (wide + 1) // chunk)
    return -(-(features + chunk * causal + state + wide + 1) * filled // length)
