"""Bringing the bytes of a block into a slot: from disk or host memory, to the CPU or a card.

A slot is a buffer that is used again and again, since fresh memory costs page faults. To a card,
bytes go from pinned memory on a stream of its own: it waits until the work that was queued on the
slot's former block is done, and the work on the new block waits for the copy. Which block goes
where, and when, is in `stream.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from stackwise.runs.damage import RESTORE
from stackwise.training.manifest import CheckpointError
from stackwise.trunk.blocks import READ_BYTES, Image, shown
from stackwise.trunk.pages import pages, pin, unpin

STAGING_BYTES = READ_BYTES + (1 << 20)  # a read and the padding between its places


class Slot:
    """A buffer for one block at a time.

    Attributes:
        buffer: Its bytes, uint8, on the reader's device.
        key: The block that it holds or is being filled with; None: nothing that can be lent.
        whole: Whether all of the block is there, or on its way by the card's stream.
        filled: On a card, when the copy into it is done.
        left: On a card, when the work queued on its former block is done.
    """

    def __init__(self, buffer: Tensor) -> None:
        self.buffer = buffer
        self.key: str | None = None
        self.whole = False
        self.filled: torch.cuda.Event | None = None
        self.left: torch.cuda.Event | None = None

    def views(self, image: Image) -> Mapping[str, Tensor]:
        """The tensors of the block, as views of the buffer."""
        return MappingProxyType(
            {
                each.name: self.buffer[each.at : each.at + each.bytes]
                .view(each.dtype)
                .view(each.shape)
                for each in image.tensors
            }
        )


class Files:
    """The blocks' files, held open: what takes their name meanwhile is not read.

    Raises:
        CheckpointError: If one cannot be opened.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        self._handles: dict[Path, int] = {}
        try:
            for path in dict.fromkeys(image.path for image in images):
                self._handles[path] = os.open(path, os.O_RDONLY)
        except OSError as error:
            self.close()
            raise CheckpointError(f"{shown(path)}: {error.strerror}; {RESTORE}") from None

    def read(self, path: Path, offset: int, places: Sequence[memoryview]) -> None:
        """Fill the places, one after the other, from `offset` of a file on.

        Raises:
            CheckpointError: If it cannot be read, or ends before.
        """
        rest = list(places)
        while rest:
            try:
                got = os.preadv(self._handles[path], rest, offset)
            except OSError as error:
                raise CheckpointError(
                    f"{shown(path)}: cannot be read: {error.strerror}; {RESTORE}"
                ) from error
            if not got:
                raise CheckpointError(
                    f"{shown(path)}: ends at byte {offset}, and was longer when it was opened; "
                    f"{RESTORE}"
                )
            offset += got
            while rest and got >= len(rest[0]):
                got -= len(rest.pop(0))
            if got:
                rest[0] = rest[0][got:]

    def close(self) -> None:
        """Close them; once is enough."""
        while self._handles:
            os.close(self._handles.popitem()[1])


class Source(Protocol):
    """What fills slots; used by one thread."""

    @property
    def host_bytes(self) -> int:
        """Bytes of blocks that it holds in host memory."""
        ...

    def fill(self, slot: Slot, image: Image) -> None:
        """Bring a block into a slot.

        Raises:
            CheckpointError: If its bytes cannot be had.
        """
        ...

    def close(self) -> None:
        """Let go of files and pinned memory."""
        ...


def read_image(files: Files, image: Image, buffer: Tensor) -> None:
    """Read a block into memory of the CPU."""
    memory = buffer.numpy().data
    for read in image.reads:
        files.read(image.path, read.offset, [memory[begin:end] for begin, end in read.places])


class Disk:
    """Blocks read from their files, straight into slots of the CPU or by way of pinned memory."""

    def __init__(self, images: Sequence[Image], device: torch.device) -> None:
        self._files = Files(images)
        self._card = Card(device) if device.type == "cuda" else None
        self._staging: list[Tensor] = []
        try:
            for _ in range(2 if self._card else 0):
                buffer = pages(STAGING_BYTES)
                pin(buffer)
                self._staging.append(buffer)
        except BaseException:
            self.close()
            raise
        self._free = [torch.cuda.Event() for _ in self._staging]

    @property
    def host_bytes(self) -> int:
        """None: they are read each time."""
        return 0

    def fill(self, slot: Slot, image: Image) -> None:
        """Read a block; to a card one staging buffer is read while the other one is copied."""
        if self._card is None:
            return read_image(self._files, image, slot.buffer)
        self._card.begin(slot)
        for number, read in enumerate(image.reads):
            turn = number % 2
            staging, free = self._staging[turn], self._free[turn]
            free.synchronize()
            begin, end = read.span
            memory = staging.numpy().data
            places = [memory[a - begin : b - begin] for a, b in read.places]
            self._files.read(image.path, read.offset, places)
            self._card.copy(slot.buffer[begin:end], staging[: end - begin])
            free.record(self._card.stream)
        self._card.end(slot)

    def close(self) -> None:
        """Close the files and unpin the staging buffers."""
        if self._card is not None:
            self._card.stream.synchronize()
        while self._staging:
            unpin(self._staging.pop())
        self._files.close()


class Host:
    """Blocks held in host memory, read from their files once; pinned where slots are on a card."""

    def __init__(self, images: Sequence[Image], device: torch.device) -> None:
        self._card = Card(device) if device.type == "cuda" else None
        self._held: dict[str, Tensor] = {}
        files = Files(images)
        try:
            for image in images:
                held = pages(image.bytes)
                read_image(files, image, held)
                if self._card is not None:
                    pin(held)
                self._held[image.key] = held
        except BaseException:
            self.close()
            raise
        finally:
            files.close()

    @property
    def host_bytes(self) -> int:
        """Of all blocks."""
        return sum(held.numel() for held in self._held.values())

    def fill(self, slot: Slot, image: Image) -> None:
        """Copy a block."""
        held = self._held[image.key]
        if self._card is None:
            np.copyto(slot.buffer[: image.bytes].numpy(), held.numpy())
            return
        self._card.begin(slot)
        self._card.copy(slot.buffer[: image.bytes], held)
        self._card.end(slot)

    def close(self) -> None:
        """Unpin and drop what is held."""
        if self._card is not None:
            self._card.stream.synchronize()
        while self._held:
            held = self._held.popitem()[1]
            if self._card is not None:
                unpin(held)


SOURCES: dict[str, Callable[[Sequence[Image], torch.device], Source]] = {"disk": Disk, "host": Host}


class Card:
    """Copies to a card on a stream of its own, in step with the work on the slots."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    def begin(self, slot: Slot) -> None:
        """Let the copies wait for the work on the slot's former block."""
        if slot.left is not None:
            self.stream.wait_event(slot.left)

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Queue a copy from pinned memory."""
        with torch.cuda.stream(self.stream):
            target.copy_(source, non_blocking=True)

    def end(self, slot: Slot) -> None:
        """Mark where the slot is whole."""
        slot.filled = torch.cuda.Event()
        slot.filled.record(self.stream)


def queued(device: torch.device) -> torch.cuda.Event:
    """When all that is queued on the current stream of a card will be done."""
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event


def empty_slot(count: int, device: torch.device) -> Slot:
    """An empty slot; on a card its memory may still be in use by work that was queued before."""
    if device.type == "cpu":
        return Slot(pages(count))
    slot = Slot(torch.empty(count, dtype=torch.uint8, device=device))
    slot.left = queued(device)
    return slot
