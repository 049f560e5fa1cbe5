"""What a token sees: all others, those before it, or block by block.

Block-causal is how block diffusion reads (BD3-LM, arXiv 2503.09573, section 3.2 and appendix B.6):
text in blocks of `size` tokens, each of which sees itself whole and, clean, the blocks before it.
So that one pass gives the loss of all blocks, rows hold the text twice, first noisy and then clean:

              noisy j                 clean j
    noisy i   block(j) = block(i)     block(j) < block(i)
    clean i   never                   block(j) <= block(i)

A row stands at its token's position in either part. No row sees the clean tokens of the last block,
so that these are left out. With clean rows alone it is how such a rack reads text that is written
block by block. Attention interprets the value; all else passes it on.

Shapes: R rows, the noisy tokens and then the clean ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

Key = tuple[int | None, torch.device, torch.dtype]


@dataclass(frozen=True)
class BlockCausal:
    """The third direction. Equal values see the same; masks that were made stay with a value.

    Attributes:
        size: Tokens per block; the last may have fewer.
        noisy: Noisy rows, which stand first.
        clean: Clean rows after them.
    """

    size: int
    noisy: int
    clean: int
    masks: dict[Key, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """R."""
        return self.noisy + self.clean

    @property
    def last_place(self) -> int:
        """The position of the last token."""
        return max(self.noisy, self.clean) - 1

    def places(self, device: torch.device) -> Tensor:
        """The position of each row's token, (R,), int64."""
        parts = [torch.arange(count, device=device) for count in (self.noisy, self.clean)]
        return torch.cat(parts)

    def seen(self, window: int | None, device: torch.device) -> Tensor:
        """True where a row sees a column, (R, R).

        Args:
            window: Positions seen to each side; None for all.
            device: Where.
        """
        place_R = self.places(device)
        block_R = place_R // self.size
        clean_R = torch.arange(self.rows, device=device) >= self.noisy
        before_RR = block_R[None, :] < block_R[:, None]
        same_RR = block_R[None, :] == block_R[:, None]
        alike_RR = ~(clean_R[None, :] ^ clean_R[:, None])  # torch's compiler cannot compare them
        seen_RR = (same_RR & alike_RR) | (before_RR & clean_R[None, :])
        if window is None:
            return seen_RR
        return seen_RR & ((place_R[None, :] - place_R[:, None]).abs() <= window)

    def bias(self, window: int | None, like: Tensor) -> Tensor:
        """What is added to scores, (R, R): 0 where a row sees a column, else -inf.

        Made once for all layers, in the dtype of values, which torch's kernels keep as it is.
        """
        if torch.compiler.is_compiling():
            return self._made(window, like)
        key = (window, like.device, like.dtype)
        if key not in self.masks:
            with torch.inference_mode(False), torch.no_grad():
                self.masks[key] = self._made(window, like)
        return self.masks[key]

    def _made(self, window: int | None, like: Tensor) -> Tensor:
        hidden_RR = ~self.seen(window, like.device)
        zeros_RR = torch.zeros(self.rows, self.rows, dtype=like.dtype, device=like.device)
        return zeros_RR.masked_fill_(hidden_RR, -torch.inf)


Direction = bool | BlockCausal


@lru_cache(maxsize=2)
def twice(size: int, tokens: int) -> BlockCausal:
    """How samples of `tokens` tokens are read to train: noisy, and clean but for the last block.

    One value for all callers, with its masks; `size` is below `tokens`.
    """
    return BlockCausal(size, tokens, (tokens - 1) // size * size)


def start_of(direction: Direction) -> int | BlockCausal:
    """Where rows stand: from position 0 on, or as the direction says."""
    return direction if isinstance(direction, BlockCausal) else 0
