"""What an attention layer keeps of the tokens that it has read, so that text can go on.

A layer that decodes has `decode(x_BTD, kept, seen)`: new tokens, what it kept of those before (None
for none), and how many these were; it gives its output for the new ones, and what to keep now. Kept
tensors lie in storage of their own, so that their bytes are the cache's. The softmax kinds keep a
row per token, as here; those with sums over keys keep these (`sums.py`). A whole rack's cache is in
`stackwise/model/decoding.py`.

Shapes: T new tokens, S those that they may see, themselves included.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Kept = tuple[Tensor, ...]


def go_on(kept: Kept | None, new: Kept, window: int | None) -> tuple[Kept, Kept]:
    """What new tokens may see, and what to keep of it: all, or the last `window` tokens.

    Args:
        kept: Of the tokens before, each (..., S - T, F); None for none.
        new: Of the new tokens, each (..., T, F).
        window: Tokens seen to the left; None for all.
    """
    if kept is None:
        whole = new
    else:
        whole = tuple(torch.cat(pair, dim=-2) for pair in zip(kept, new, strict=True))
    if window is None and kept is not None:
        return whole, whole
    recent = (x if window is None else x[..., -window:, :] for x in whole)
    return whole, tuple(x.clone(memory_format=torch.contiguous_format) for x in recent)


def visible(
    new: int, whole: int, window: int | None, device: torch.device, together: bool = False
) -> Tensor | None:
    """True where a new token (row) may see one of all (column), (T, S); None if it sees all.

    Args:
        new: T; the last of all.
        whole: S.
        window: Tokens seen to the left; None for all.
        device: Of the mask.
        together: Whether new tokens are a block, and see each other; without a window.
    """
    if together:
        return None
    if new == 1 and (window is None or whole <= window + 1):
        return None
    place_T = torch.arange(whole - new, whole, device=device)
    ahead_TS = torch.arange(whole, device=device)[None, :] - place_T[:, None]
    seen_TS = ahead_TS <= 0
    return seen_TS if window is None else seen_TS & (ahead_TS >= -window)


def attend_kept(
    q_BHTE: Tensor, k_BGSE: Tensor, v_BGSE: Tensor, window: int | None, together: bool = False
) -> Tensor:
    """softmax(q k / sqrt E) v at the last T of S tokens, (B, H, T, E); G divides H."""
    mask_TS = visible(q_BHTE.shape[-2], k_BGSE.shape[-2], window, q_BHTE.device, together)
    grouped = k_BGSE.shape[1] < q_BHTE.shape[1]
    return F.scaled_dot_product_attention(
        q_BHTE.to(v_BGSE.dtype), k_BGSE, v_BGSE, attn_mask=mask_TS, enable_gqa=grouped
    )
