"""Reading a text that is written block by block, under the mask of `block_diffusion`.

Blocks that are done are read once, clean, into a cache; the one that is being written is read anew
at every step, seeing the cache and itself whole. Equal to the whole text under the mask, to
rounding (`tests/unit/samplers/test_blocks_are_written_left_to_right.py`). Where nothing can be
kept, as with a window of the rack's, which forgets what a block's later tokens see, all of the text
up to the block is read at every step.

Shapes: B samples, T tokens up to the end of a block, P of them in the blocks before it, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from stackwise.model.decoding import Cache, decode, decodes_blocks
from stackwise.model.direction import BlockCausal
from stackwise.model.rack import Rack

Count = Callable[[Tensor, int], None]  # tokens that are read, (B, new), and how many are kept


class BlockReader:
    """Remembers the blocks that are done, of some texts.

    Args:
        rack: The rack, or a module that answers `hidden` as one does.
        size: Tokens per block.
        count: Told of every read.
    """

    def __init__(self, rack: Rack, size: int, count: Count) -> None:
        self.rack, self.size, self.count = rack, size, count
        self.text_SP: Tensor | None = None
        self.cache: Cache | None = None

    def hidden(self, ids_BT: Tensor, path: tuple[str, ...]) -> Tensor:
        """(B, T) ids, whose last block is being written, to (B, T, D): zeros before that block."""
        done = (ids_BT.shape[1] - 1) // self.size * self.size
        if not decodes_blocks(self.rack):
            self.count(ids_BT, 0)
            how = BlockCausal(self.size, 0, ids_BT.shape[1])
            return self.rack.hidden(ids_BT, causal=how, path=path)
        cache = self._before(ids_BT[:, :done], path)
        x_BLD, _ = self._read(ids_BT[:, done:], cache, path)
        return pad(x_BLD, (0, 0, done, 0))

    def _before(self, ids_BP: Tensor, path: tuple[str, ...]) -> Cache | None:
        """The cache of these blocks, of which those that are new are read now."""
        cache, seen = self._of(ids_BP), 0
        if cache is not None:
            seen = cache.seen
        if cache is None or seen < ids_BP.shape[1]:
            for first in range(seen, ids_BP.shape[1], self.size):
                _, cache = self._read(ids_BP[:, first : first + self.size], cache, path)
            self.text_SP, self.cache = ids_BP, cache
        return cache

    def _of(self, ids_BP: Tensor) -> Cache | None:
        """What is kept of the texts that these begin with; None if it is of others."""
        if self.text_SP is None or self.cache is None or self.cache.seen > ids_BP.shape[1]:
            return None
        same_BS = (ids_BP[:, None, : self.cache.seen] == self.text_SP).all(-1)
        if not same_BS.any(1).all():
            return None
        place_B = same_BS.int().argmax(1)
        if torch.equal(place_B, torch.arange(len(self.text_SP), device=place_B.device)):
            return self.cache
        blocks = tuple(tuple(x[place_B] for x in kept) for kept in self.cache.blocks)
        return Cache(self.cache.seen, blocks)

    def _read(
        self, ids_BL: Tensor, cache: Cache | None, path: tuple[str, ...]
    ) -> tuple[Tensor, Cache]:
        self.count(ids_BL, 0 if cache is None else cache.seen)
        return decode(self.rack, ids_BL, cache, path=path, together=True)
