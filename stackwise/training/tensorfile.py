"""A safetensors file, written one tensor at a time.

The library's own writer first copies all of a part into bytes. A part may be as large as memory
allows, so this one writes each tensor straight from where it lies and hashes on the way; the files
are read with the library (a test compares the two, byte for byte). What does not lie in memory is a
`LazyTensor`, made some rows at a time as it is written. Which files there are and when they count
is in `checkpoint.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stackwise.pulse import beat

PIECE_BYTES = 1 << 20
WRITTEN_BYTES = 64 << 20  # at a time; each is a sign of life
MADE_BYTES = 8 << 20  # of a lazy tensor, at a time; one row at least
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of one or more dimensions of which any rows can be made, when they are wanted.

    Attributes:
        dtype: Of its elements.
        shape: As a tensor's.
        rows: (start, stop) to those rows, (stop - start, *shape[1:]).
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    rows: Callable[[int, int], Tensor]

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    def numel(self) -> int:
        """Elements."""
        return math.prod(self.shape)

    def make(self) -> Tensor:
        """All of it."""
        return self.rows(0, self.shape[0])


Tensors = Mapping[str, Tensor | LazyTensor]


def save_file(tensors: Tensors, path: Path) -> str:
    """Write a safetensors file.

    Args:
        tensors: Name to tensor, of any device and layout; one at a time is copied, and only if
            it is not contiguous in the CPU's memory. Of a lazy one some rows are held at a time.
        path: Where.

    Returns:
        The sha256 of the file.

    Raises:
        TypeError: If a tensor has a dtype that such a file cannot hold.
        ValueError: If a lazy tensor's rows are not of the dtype and shape that it announced.
        OSError: If it cannot be written.
    """
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for piece in pieces(tensors):
            digest.update(piece)
            while piece:
                piece = piece[file.write(piece[:WRITTEN_BYTES]) :]
                beat()
            del piece  # before the next one is made
    return digest.hexdigest()


def holds(path: Path, tensors: Tensors) -> bool:
    """Whether the file is what `save_file` would write; reads to the first difference."""
    try:
        with path.open("rb") as file:
            for piece in pieces(tensors):
                for start in range(0, len(piece), PIECE_BYTES):
                    wanted = bytes(piece[start : start + PIECE_BYTES])
                    if file.read(len(wanted)) != wanted:
                        return False
                del piece  # before the next one is made
            return not file.read(1)
    except FileNotFoundError:
        return False


def pieces(tensors: Tensors) -> Iterator[memoryview]:
    """The bytes of the file: its header, then each tensor."""
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    yield memoryview(header(tensors, names))
    for name in names:
        beat()
        tensor = tensors[name]
        if not tensor.numel():
            continue
        if isinstance(tensor, LazyTensor):
            yield from made(name, tensor)
        else:
            yield bytes_of(tensor)


def made(name: str, tensor: LazyTensor) -> Iterator[memoryview]:
    """The bytes of a lazy tensor, some rows at a time; none are kept here."""
    count = tensor.shape[0]
    step = max(1, MADE_BYTES * count // (tensor.numel() * tensor.itemsize))
    for start in range(0, count, step):
        yield bytes_of(checked(name, tensor, start, min(start + step, count)))


def checked(name: str, tensor: LazyTensor, start: int, stop: int) -> Tensor:
    """Rows of a lazy tensor, once they are known to be what the header says."""
    rows = tensor.rows(start, stop)
    wanted = (stop - start, *tensor.shape[1:])
    if rows.dtype != tensor.dtype or tuple(rows.shape) != wanted:
        raise ValueError(
            f"tensor {name!r}: rows {start} to {stop} came as {rows.dtype} {tuple(rows.shape)}, "
            f"and {tensor.dtype} {wanted} were announced"
        )
    return rows


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's elements in order, without a copy where they lie so."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def header(tensors: Tensors, names: list[str]) -> bytes:
    """Eight bytes of length, then dtype, shape and place of each tensor as JSON."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise TypeError(f"tensor {name!r}: {tensor.dtype} cannot be kept in safetensors")
        end = place + tensor.numel() * tensor.itemsize
        entries[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [place, end],
        }
        place = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
