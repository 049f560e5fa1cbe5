"""A rack as a sampler sees it: what is read of it is counted, and unlikely tokens are cut off.

A sampler calls `hidden`, `logits` and `path_for` as it would call the rack's. The counts are those
of the calls that were made, so that they hold for a sampler of the user's own, too.

Shapes: B samples, T tokens, D width, V entries of the head, N positions chosen from B x T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from stackwise.memory.flops import decode_flops_per_token, head_flops, read_flops_per_token
from stackwise.model.adapters import adapter_parameters
from stackwise.model.decoding import decodes, reading
from stackwise.model.rack import Rack
from stackwise.sampling.by_block import BlockReader
from stackwise.sampling.choosing import cut

if TYPE_CHECKING:
    from stackwise.model.rack import BandPath


class View:
    """A rack that counts its reads.

    Args:
        rack: The rack, or a module that answers `hidden`, `logits` and `path_for` as one does.
        temperature: Of choosing, which decides what `top_p` keeps.
        top_k: See `cut`.
        top_p: See `cut`.
        block: Tokens per block, for a rack that reads text block by block; None for others.

    Attributes:
        block: The same.
        forwards: Reads so far: calls that ran the blocks on some samples.
        samples: Samples in them; a batch of 8 that is read once counts 8.
        flops: Of these reads, heads included; None for a module whose cost is not known.
        paths: The stacks that ran, one entry per read.
    """

    def __init__(
        self,
        rack: Rack,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        block: int | None = None,
    ) -> None:
        self._rack, self._cut, self.block = rack, (temperature, top_k, top_p), block
        self._blocks = None if block is None else BlockReader(rack, block, self._count_new)
        self.forwards = self.samples = 0
        self.flops: float | None = 0.0 if isinstance(rack, Rack) else None
        self.paths: list[tuple[str, ...]] = []
        self._costs: dict[tuple[tuple[str, ...], int, bool], float] = {}

    @property
    def mask_id(self) -> int:
        """The id that reads as [MASK]."""
        return self._rack.mask_id

    @property
    def start_id(self) -> int:
        """The id that reads as [START]."""
        return self._rack.start_id

    @property
    def bands(self) -> list[BandPath]:
        """Which stacks serve which masked fraction, as (low, high, stacks); [] if it has none."""
        return getattr(self._rack, "paths", [])

    def path_for(self, masked_frac: float) -> tuple[str, ...]:
        """The stacks that serve a masked fraction in (0, 1]."""
        return self._rack.path_for(masked_frac)

    def hidden(
        self, ids_BT: Tensor, *, causal: bool = False, path: Sequence[str] | None = None
    ) -> Tensor:
        """The rack's, counted; block by block of the last block alone."""
        stacks = self._rack.path_for(1.0) if path is None else tuple(path)
        if self._blocks is not None:
            return self._blocks.hidden(ids_BT, stacks)
        self._count(ids_BT, stacks, lambda: self._cost(stacks, ids_BT.shape[1], causal))
        return self._rack.hidden(ids_BT, causal=causal, path=stacks)

    def reading(self) -> Callable[[Tensor], Tensor]:
        """What reads a text that grows, counted: see `stackwise/model/decoding.py`."""
        read, stacks, seen = reading(self._rack), self._rack.path_for(1.0), 0
        remembers = decodes(self._rack)

        def last_BD(ids_BT: Tensor) -> Tensor:
            nonlocal seen
            new_BT, before = ids_BT[:, seen:], seen
            seen = ids_BT.shape[1] if remembers else 0
            self._count(new_BT, stacks, lambda: self._decode_cost(stacks, new_BT.shape[1], before))
            return read(ids_BT)

        return last_BD

    def logits(self, x_ND: Tensor) -> Tensor:
        """The rack's, counted, without what is cut off."""
        if self.flops is not None:
            each = head_flops(self._rack.shape, self._rack.vocab)
            self.flops += each * (x_ND.numel() // x_ND.shape[-1])
        return cut(self._rack.logits(x_ND), *self._cut)

    def _count_new(self, ids_BT: Tensor, seen: int) -> None:
        stacks, new = self._rack.path_for(1.0), ids_BT.shape[1]
        self._count(ids_BT, stacks, lambda: self._decode_cost(stacks, new, seen))

    def _count(
        self, ids_BT: Tensor, path: tuple[str, ...], each: Callable[[], float | None]
    ) -> None:
        """Note that these tokens are read at so many FLOPs each."""
        self.forwards += 1
        self.samples += len(ids_BT)
        self.paths.append(path)
        if self.flops is not None:
            cost = each()
            self.flops = None if cost is None else self.flops + ids_BT.numel() * cost

    def _decode_cost(self, path: tuple[str, ...], new: int, seen: int) -> float | None:
        whole = decode_flops_per_token(self._rack.shape, self._rack.attention, path, new, seen)
        return None if whole is None else whole + self._beside(path)

    def _cost(self, path: tuple[str, ...], length: int, causal: bool) -> float:
        key = (path, length, causal)
        if key not in self._costs:
            shape, attention = self._rack.shape, self._rack.attention
            whole = read_flops_per_token(shape, attention, path, length, causal)
            self._costs[key] = whole + self._beside(path)
        return self._costs[key]

    def _beside(self, path: tuple[str, ...]) -> float:
        """FLOPs per token of the adapters that the stacks carry: 2 for each number of A and B."""
        carried = (adapter_parameters(self._rack.stacks[stack]) for stack in path)
        return 2.0 * sum(tensor.numel() for found in carried for _, tensor in found)
