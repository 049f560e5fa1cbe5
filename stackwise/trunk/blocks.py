"""Where the tensors of a block lie in its safetensors file, and where in a buffer they go.

Only headers are read here, and every size in them is checked against the file before anything is
allocated. A block's bytes in a buffer are its image, in the order of the file. On the CPU each has
there the place within a cache line that it has in the file, since copies between such places are
the fastest (`benchmarks/reading.py` bounds the rate), and neighbours stay neighbours. On a card
each begins at a multiple of 256, as its kernels like it. Neighbours are read by one system call.
Who reads and when is in `stream.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stackwise.errors import closest
from stackwise.runs.damage import RESTORE
from stackwise.training.manifest import CheckpointError
from stackwise.training.tensorfile import DTYPES

LARGEST_HEADER = 100_000_000  # the library's own bound
LINE = 64  # bytes of a cache line
CARD_ALIGNED = 256  # bytes; what a card's allocator gives, too
READ_BYTES = 64 << 20  # of one read: the next block's request never waits behind a longer one
PARTS = 512  # places of one read; Linux takes 1024
NAMED = {name: dtype for dtype, name in DTYPES.items()}


@dataclass(frozen=True)
class StoredBlock:
    """A frozen block in a file.

    Attributes:
        key: What it is asked for by, as in `s3.0`.
        path: Its safetensors file.
        prefix: What its tensors' names begin with there, as in `blocks.0.`.
        names: Those that are lent, without the prefix.
    """

    key: str
    path: Path
    prefix: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor of an image: `bytes` from `start` of the file go to `at` of the buffer."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    bytes: int
    at: int = 0


@dataclass(frozen=True)
class Read:
    """A run of a file's bytes from `offset` on, and the places of the buffer that it fills."""

    offset: int
    places: tuple[tuple[int, int], ...]

    @property
    def span(self) -> tuple[int, int]:
        """Begin and end in the buffer, padding included."""
        return self.places[0][0], self.places[-1][1]

    @property
    def bytes(self) -> int:
        """From the file."""
        return sum(end - begin for begin, end in self.places)


@dataclass(frozen=True)
class Image:
    """A block as it lies in a buffer.

    Attributes:
        key: The block's.
        path: Its file.
        tensors: Where each lies, in the order of the file.
        reads: What fills it.
        bytes: Its length, padding included.
    """

    key: str
    path: Path
    tensors: tuple[PlacedTensor, ...]
    reads: tuple[Read, ...]
    bytes: int


def images_of(blocks: Sequence[StoredBlock], *, card: bool = False) -> list[Image]:
    """The images of blocks, from the headers of their files.

    Args:
        blocks: Which.
        card: Whether the buffers are a card's.

    Raises:
        CheckpointError: If a file is missing, cut or odd, or lacks one of the tensors.
        ValueError: If two blocks have one key.
    """
    keys = [block.key for block in blocks]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(f"blocks: {twice[0]!r} stands there twice; give every block its own key")
    headers = {path: read_header(path) for path in {block.path for block in blocks}}
    return [image_of(block, headers[block.path], card) for block in blocks]


def image_of(block: StoredBlock, header: dict[str, PlacedTensor], card: bool) -> Image:
    """The image of a block in the file that the header is of."""
    names = [block.prefix + name for name in block.names]
    for name in names:
        if name not in header:
            raise CheckpointError(
                f"{shown(block.path)}: has no tensor {name!r} of block {block.key!r}"
                f"{closest(name, header)}"
            )
    placed, end = [], 0
    for found in sorted((header[name] for name in names), key=lambda tensor: tensor.start):
        at = place_of(found, end, card)
        name = found.name.removeprefix(block.prefix)
        placed.append(PlacedTensor(name, found.dtype, found.shape, found.start, found.bytes, at))
        end = at + found.bytes
    return Image(block.key, block.path, tuple(placed), reads_of(placed), end)


def place_of(tensor: PlacedTensor, end: int, card: bool) -> int:
    """Where a tensor goes in an image that ends at `end` so far."""
    if card:
        return end + -end % CARD_ALIGNED
    odd = tensor.start % tensor.dtype.itemsize  # nobody writes such files, but they are allowed
    return end + (-end if odd else tensor.start - end) % LINE


def reads_of(placed: Sequence[PlacedTensor]) -> tuple[Read, ...]:
    """As few reads as fill the places: neighbours together, up to `READ_BYTES`."""
    reads: list[Read] = []
    for tensor in placed:
        for begin in range(0, tensor.bytes, READ_BYTES):
            end = min(begin + READ_BYTES, tensor.bytes)
            place, offset = (tensor.at + begin, tensor.at + end), tensor.start + begin
            last = reads[-1] if reads else None
            if (
                last is not None
                and last.offset + last.bytes == offset
                and last.bytes + end - begin <= READ_BYTES
                and len(last.places) < PARTS
            ):
                reads[-1] = Read(last.offset, joined(last.places, place))
            else:
                reads.append(Read(offset, (place,)))
    return tuple(reads)


def joined(
    places: tuple[tuple[int, int], ...], place: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """Places and the next one; one longer place where they touch."""
    begin, end = places[-1]
    if end == place[0]:
        return *places[:-1], (begin, place[1])
    return *places, place


def read_header(path: Path) -> dict[str, PlacedTensor]:
    """Name to dtype, shape and place of each tensor of a safetensors file; no weights are read.

    Raises:
        CheckpointError: If the file is missing, shorter or longer than its header says, or no
            safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise CheckpointError(
                    f"{shown(path)}: {size} bytes cannot hold a header of {length}; the file is "
                    f"cut or no safetensors file; {RESTORE}"
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: {error.strerror}; {RESTORE}") from None
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        header = {name: _placed(name, entry, 8 + length) for name, entry in entries.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{shown(path)}: its header is damaged; {RESTORE}") from None
    whole = max((tensor.start + tensor.bytes for tensor in header.values()), default=8 + length)
    if whole != size:
        raise CheckpointError(
            f"{shown(path)}: has {size} bytes, and its header says {whole}; {RESTORE}"
        )
    return header


def _placed(name: str, entry: Any, base: int) -> PlacedTensor:
    """An entry of a header.

    Raises:
        ValueError: If its numbers do not agree with each other.
    """
    dtype, shape, (begin, end) = NAMED[entry["dtype"]], entry["shape"], entry["data_offsets"]
    numbers = [*shape, begin, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a size that is not a whole number")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("bytes that do not fit the shape")
    return PlacedTensor(name, dtype, tuple(shape), base + begin, end - begin)


def shown(path: Path) -> str:
    """A file as messages name it."""
    return f"{path.parent.name}/{path.name}"
