"""Batches of a user's own dataloader, one after the other and again from the start.

Any iterable will do. What a rack needs of them, token ids, is read here too; the loop that takes
them is in `loop.py`. Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

END = object()


@dataclass(frozen=True)
class OwnBatch:
    """A batch as the dataloader gave it.

    Attributes:
        values: The batch.
        draw: How often the dataloader was read to its end before.
        index: The batch's place since then.
    """

    values: Any
    draw: int
    index: int


class Batches:
    """Reads a dataloader, and again when it is at its end.

    Attributes:
        first: Its first batch, which `take` gives too.

    Raises:
        ValueError: If it gives no batch at all.
    """

    def __init__(self, source: Iterable[Any]) -> None:
        self._source, self._items = source, iter(source)
        self._given = self._draw = self._index = 0
        self.first = next(self._items, END)
        self._ahead: list[Any] = [self.first]
        if self.first is END:
            raise ValueError(
                "dataloader: gave no batch; it is empty, or was read to its end before"
            )

    def take(self, needed: int) -> OwnBatch:
        """The next batch.

        Args:
            needed: How many are taken in all, for the message.

        Raises:
            ValueError: If the dataloader is at its end and cannot be read again.
        """
        item = self._ahead.pop() if self._ahead else next(self._items, END)
        if item is END:
            self._items, self._draw, self._index = iter(self._source), self._draw + 1, 0
            item = next(self._items, END)
        if item is END:
            raise ValueError(
                f"dataloader: ended after {self._given} batches and cannot be read again, but "
                f"{needed} are needed; give a list or a DataLoader, or steps={self._given}"
            )
        batch = OwnBatch(item, self._draw, self._index)
        self._given, self._index = self._given + 1, self._index + 1
        return batch


def steps_of(source: Iterable[Any]) -> int:
    """One pass over a dataloader, in batches.

    Raises:
        ValueError: If it does not know its length.
    """
    try:
        if isinstance(source, Sized):
            return len(source)
    except TypeError:  # a DataLoader over a dataset without a length
        pass
    raise ValueError("steps: the dataloader has no length; say on how many batches to train")


def ids_of(values: Any, vocab: int) -> Tensor:
    """Token ids (B, T), int64, of a batch for a rack: a tensor, or a mapping with `input_ids`.

    Raises:
        ValueError: If there are none, or some are outside 0 to `vocab` - 1.
    """
    if isinstance(values, Mapping) and "input_ids" in values:
        values = values["input_ids"]
    if not isinstance(values, Tensor):
        raise ValueError(
            f"dataloader: gave {type(values).__name__}; a rack reads a tensor of token ids (B, T) "
            "or a mapping with input_ids"
        )
    if values.ndim != 2 or not values.numel() or values.is_floating_point():
        raise ValueError(
            f"dataloader: gave {str(values.dtype).removeprefix('torch.')} of shape "
            f"{tuple(values.shape)}; a rack reads whole-number token ids (B, T)"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= vocab:
        raise ValueError(
            f"dataloader: gave ids from {low} to {high}; this rack reads 0 to {vocab - 1}"
        )
    return values.to(torch.int64)


def tokens_of(values: Any) -> tuple[int, int] | None:
    """Samples and tokens per sample of a batch of any module, where ids tell them."""
    if isinstance(values, Mapping):
        values = values.get("input_ids")
    if isinstance(values, Tensor) and values.ndim == 2 and not values.is_floating_point():
        return len(values), values.shape[1]
    return None
