"""Frozen blocks that do not stay in memory: a few slots, refilled ahead of whoever asks.

    with BlockReader(blocks) as reader:
        linear.lend(reader.lender("s3.0", "attention.qkv."))

A thread reads ahead what will be asked for next (`travel.py`). Slots carry the key of what is in
them, and the block last asked for is never overwritten; so what is lent is always that block's,
forward and backward. What was lent before is overwritten, and its version moves with its bytes:
whoever let autograd keep it for a backward gets autograd's error, not another block's gradient.

Where a block's bytes lie is in `blocks.py`; how they are brought in `filling.py`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

import torch
from torch import Tensor

from stackwise.errors import closest
from stackwise.trunk.blocks import Image, StoredBlock, images_of
from stackwise.trunk.filling import SOURCES, Slot, Source, empty_slot, queued
from stackwise.trunk.travel import Travel

CPU = torch.device("cpu")
SLOTS = 3  # one in use, one ahead, one that a change of direction comes back to


@dataclass
class Reading:
    """What a reader did so far.

    Attributes:
        blocks: Fetched into slots.
        bytes: Of them.
        waits: How often a block that was asked for was not there yet.
        wait_seconds: How long that took in all.
    """

    blocks: int = 0
    bytes: int = 0
    waits: int = 0
    wait_seconds: float = 0.0


class BlockReader:
    """Lends the tensors of frozen blocks; use it in a `with` block, from one thread at a time.

    Args:
        blocks: In the order in which a forward pass asks for them. Only headers are read at first.
        source: `disk` reads a block each time it comes; `host` reads all of them once, and keeps
            them in memory, pinned where the slots are on a card.
        slots: Buffers of the largest block's size, 2 or more: one is in use, the others are ahead.
            No more than there are blocks are made.
        device: Where the slots are.

    Raises:
        CheckpointError: If a file is missing, cut or odd, or lacks a tensor.
        ValueError: If there are no blocks, two of one key, or too few slots.
    """

    def __init__(
        self,
        blocks: Sequence[StoredBlock],
        *,
        source: Literal["disk", "host"] = "disk",
        slots: int = SLOTS,
        device: torch.device = CPU,
    ) -> None:
        if slots < 2:
            raise ValueError(f"slots: {slots} must be 2 or more: one is in use, one is ahead")
        if not blocks:
            raise ValueError("blocks: there are none to lend; give at least one")
        if source not in SOURCES:
            raise ValueError(f"source: {source!r} is not known{closest(source, SOURCES)}")
        images = images_of(blocks, card=device.type == "cuda")
        self._images = {image.key: image for image in images}
        self._device = device
        largest = max(image.bytes for image in images)
        count = min(slots, len(images))
        self._slots = [empty_slot(largest, device) for _ in range(count)]  # last used, last
        self._source: Source = SOURCES[source](images, device)
        self._lent: tuple[Slot, Mapping[str, Tensor]] | None = None
        self._travel = Travel([image.key for image in images])
        self._did = Reading()
        self._failure: BaseException | None = None
        self._told = False
        self._closed = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="stackwise-blocks", daemon=True)
        self._thread.start()

    @property
    def did(self) -> Reading:
        """What was read and waited for until now."""
        return replace(self._did)

    @property
    def slot_bytes(self) -> int:
        """Of all slots."""
        return sum(slot.buffer.numel() for slot in self._slots)

    @property
    def host_bytes(self) -> int:
        """Of the blocks that are held in host memory beside the slots."""
        return self._source.host_bytes

    def has(self, key: str) -> bool:
        """Whether it lends a block."""
        return key in self._images

    def tensors(self, key: str) -> Mapping[str, Tensor]:
        """The tensors of a block, by the names that its `StoredBlock` gives.

        They may be used until another block is asked for; on a card, by work that was queued
        before then on the stream that is current at that call.

        Args:
            key: The block's.

        Raises:
            CheckpointError: If the thread could not read this or another block.
            ValueError: If there is no such block.
            RuntimeError: If the reader is closed.
        """
        with self._news:
            if self._told:  # who asks again has it tried again
                self._failure, self._told = None, False
                self._news.notify_all()
            self._check(key)
            if key != self._travel.here:
                self._move_to(key)
            if self._lent is None:
                slot = self._whole(key)
                self._slots.remove(slot)
                self._slots.append(slot)
                self._lent = slot, slot.views(self._images[key])
            slot, tensors = self._lent
            if slot.filled is not None:
                torch.cuda.current_stream(self._device).wait_event(slot.filled)
            return tensors

    def lender(self, key: str, prefix: str) -> Callable[[], Mapping[str, Tensor]]:
        """What lends the tensors of one layer of a block, by their names without its prefix.

        Args:
            key: The block's.
            prefix: As in `attention.qkv.`.

        Raises:
            ValueError: If there is no such block, or no tensor of it begins so.
        """
        tensors = self._known(key).tensors
        names = [each.name for each in tensors if each.name.startswith(prefix)]
        if not names:
            raise ValueError(f"block {key!r}: lends no tensor that begins with {prefix!r}")

        def lend() -> Mapping[str, Tensor]:
            lent = self.tensors(key)
            return {name.removeprefix(prefix): lent[name] for name in names}

        return lend

    def _known(self, key: str) -> Image:
        if key not in self._images:
            raise ValueError(f"block {key!r}: is not lent here{closest(key, self._images)}")
        return self._images[key]

    def _check(self, key: str) -> None:
        self._known(key)
        if self._closed:
            raise RuntimeError(f"block {key!r}: its reader is closed; open another one")
        if self._failure is not None:
            self._told = True
            raise self._failure

    def _move_to(self, key: str) -> None:
        """Give up what is lent, and let the thread go on from here."""
        if self._lent is not None and self._device.type == "cuda":
            self._lent[0].left = queued(self._device)
        self._lent = None
        self._travel.move_to(key)
        self._news.notify_all()

    def _whole(self, key: str) -> Slot:
        """The slot of a block, once all of it is there."""
        slot = self._slot_of(key)
        if slot is not None and slot.whole:
            return slot
        asked = time.perf_counter()
        while True:
            self._news.wait()
            self._check(key)
            slot = self._slot_of(key)
            if slot is not None and slot.whole:
                self._did.waits += 1
                self._did.wait_seconds += time.perf_counter() - asked
                return slot

    def _slot_of(self, key: str) -> Slot | None:
        return next((slot for slot in self._slots if slot.key == key), None)

    def _job(self) -> tuple[Slot, Image] | None:
        """The next block to fetch, and the slot that was used longest ago of those not wanted."""
        if self._failure is not None:
            return None
        wanted = self._travel.wanted(len(self._slots))
        for key in wanted:
            if self._slot_of(key) is None:
                slot = next(slot for slot in self._slots if slot.key not in wanted)
                return slot, self._images[key]
        return None

    def _run(self) -> None:
        """Fetch what is wanted until the reader is closed."""
        while True:
            with self._news:
                while not self._closed and (job := self._job()) is None:
                    self._news.wait()
                if self._closed:
                    return
                assert job is not None
                slot, image = job
                slot.key, slot.whole = image.key, False
            failure = self._fetched(slot, image)
            with self._news:
                if failure is None:
                    slot.whole = True
                    self._did.blocks += 1
                    self._did.bytes += sum(tensor.bytes for tensor in image.tensors)
                else:
                    slot.key, self._failure = None, failure
                self._news.notify_all()

    def _fetched(self, slot: Slot, image: Image) -> BaseException | None:
        """Fill a slot; what was lent of it before is no longer what autograd saved."""
        try:
            torch.autograd.graph.increment_version(slot.buffer)
            self._source.fill(slot, image)
        except BaseException as error:  # whatever it is belongs to whoever asks
            return error
        return None

    def close(self) -> None:
        """End the thread, and let go of files and buffers; once is enough."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        if threading.current_thread() is not self._thread:  # as where it is collected in there
            self._thread.join()
        self._source.close()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # work that reads the slots
        self._slots, self._lent = [], None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
