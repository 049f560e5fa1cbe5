"""Reading on where a rack stopped: new ids and a cache in, hidden states and a new cache out.

Nothing is changed in place: a cache may be gone on from twice. Equal to the full causal forward to
rounding, for every kind of attention, any pieces and any path
(`tests/unit/test_decoding_equals_the_full_forward.py`). What a layer keeps is in
`attention/cached.py`; sampling with it in `stackwise/sampling/autoregressive.py`.

Shapes: B samples, T new tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from stackwise.model.attention import kind_of
from stackwise.model.attention.cached import Kept
from stackwise.model.rack import Rack

if TYPE_CHECKING:
    from torch import nn


class Cache(NamedTuple):
    """What the blocks of a path keep of the tokens that they have read.

    Attributes:
        seen: Tokens read, a window's forgotten ones included.
        blocks: Tensors of each block, in the order they run; samples on the first axis.
    """

    seen: int
    blocks: tuple[Kept, ...]

    @property
    def bytes(self) -> int:
        """Of all samples."""
        return sum(tensor.untyped_storage().nbytes() for kept in self.blocks for tensor in kept)


def decodes(rack: nn.Module) -> bool:
    """Whether this is a rack whose kind of attention says how it goes on from a cache."""
    return isinstance(rack, Rack) and kind_of(rack.attention).decode is not None


def decodes_blocks(rack: nn.Module) -> bool:
    """Whether it does so block by block: a window would forget what later tokens of a block see."""
    if not isinstance(rack, Rack) or not decodes(rack):
        return False
    return kind_of(rack.attention).blocks and rack.shape.window is None


def decode(
    rack: Rack,
    ids_BT: Tensor,
    cache: Cache | None = None,
    *,
    path: Sequence[str] | None = None,
    together: bool = False,
) -> tuple[Tensor, Cache]:
    """Read new tokens after those that are in the cache, causally.

    Args:
        rack: The rack.
        ids_BT: Ids up to V + 1 of the new tokens, one or several. The first of a text is [START],
            as in training, or what the caller would have read first.
        cache: Of the tokens before, over the same path; None at the beginning.
        path: Stacks, in the order they run; None as for `Rack.hidden`.
        together: New tokens are a block, which sees itself whole: for racks that `decodes_blocks`.

    Returns:
        Hidden states (B, T, D) of the new tokens, which `rack.logits` takes, and the cache with
        them in it.

    Raises:
        ValueError: If the kind of attention has no `decode`, if there are no new tokens, if the
            cache is of other blocks or samples, or if there are more tokens than learned positions.
    """
    step = kind_of(rack.attention).decode
    if step is None:
        raise ValueError(
            f"attention {rack.attention.choice!r} says nothing of how it goes on from a cache; "
            "give its sw.AttentionKind decode=..., or read the whole text with rack.hidden"
        )
    blocks = list(rack.blocks(rack.path_for(1.0) if path is None else path))
    _check(ids_BT, cache, len(blocks))
    seen = 0 if cache is None else cache.seen
    before: Sequence[Kept | None] = [None] * len(blocks) if cache is None else cache.blocks
    after: list[Kept] = []

    how: dict[str, bool] = {"together": True} if together else {}

    def going_on(layer: nn.Module, kept: Kept | None) -> Callable[[Tensor], Tensor]:
        def attention(x_BTD: Tensor) -> Tensor:
            y_BTD, now = step(layer, x_BTD, kept, seen, **how)
            after.append(now)
            return y_BTD

        return attention

    with rack.autocast(ids_BT.device):
        x_BTD = rack.embedding(ids_BT, seen)
        for block, kept in zip(blocks, before, strict=True):
            x_BTD = block.around(going_on(block.attention, kept), x_BTD)
    return x_BTD, Cache(seen + ids_BT.shape[1], tuple(after))


def _check(ids_BT: Tensor, cache: Cache | None, blocks: int) -> None:
    """Refuse what cannot be gone on with."""
    samples, new = ids_BT.shape
    if not new:
        raise ValueError("ids: no new tokens; give (B, T) with T of 1 or more")
    if cache is None:
        return
    if len(cache.blocks) != blocks:
        raise ValueError(
            f"cache: of {len(cache.blocks)} blocks, but the path has {blocks}; use the path that "
            "it was made on, or begin with None"
        )
    held = {len(tensor) for kept in cache.blocks for tensor in kept}
    if held - {samples}:
        raise ValueError(
            f"cache: of {max(held)} samples, but ids has {samples}; begin with None for others"
        )


def reading(rack: Rack) -> Callable[[Tensor], Tensor]:
    """What reads a text that grows: all ids so far, (B, T), to the last one's hidden state, (B, D).

    It reads each token once, and remembers. Where the kind of attention has no `decode`, or this is
    only like a rack, it reads everything again each time. The text may only grow between calls.
    """
    if not decodes(rack):
        return lambda ids_BT: rack.hidden(ids_BT, causal=True)[:, -1]
    cache: Cache | None = None

    def last_BD(ids_BT: Tensor) -> Tensor:
        nonlocal cache
        new_BT = ids_BT if cache is None else ids_BT[:, cache.seen :]
        x_BTD, cache = decode(rack, new_BT, cache)
        return x_BTD[:, -1]

    return last_BD
