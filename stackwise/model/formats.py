"""What a frozen weight is kept in: fp32, fp16, bf16, fp8, int8, nf4 or fp4, as plain tensors.

A format turns a matrix into a dict of tensors and back. The tensor of codes is called as the
format, so that the bytes of one are never read as another's; `scale` stands beside it where there
are scales. The arithmetic is in `codes.py`, the layer in `frozen.py`, and what each format loses
in docs/formats.md.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from stackwise.errors import ExperimentError, closest
from stackwise.model import codes
from stackwise.model.codes import BLOCK, Layout, Shape, Tensors

WEIGHTS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # what can be packed
PACKAGE, OLDEST = "bitsandbytes", (0, 50)  # the first with 4-bit kernels for a CPU
BF16_LARGEST = torch.finfo(torch.bfloat16).max
WAY_OUT = 'pip install "stackwise[quant]"'


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to keep a frozen weight. O outputs, I inputs.

    Attributes:
        name: In `FORMATS`, and of the tensor of codes.
        layout: The shape of a weight to names, shapes and dtypes of what is kept.
        write: (rows, number of the first one, tensors to fill).
        read: (tensors, shape, dtype, where to or None) to the weight.
        block: Numbers along a row that have to be quantised together.
        largest: The largest magnitude that it takes.
        keeps: Dtypes whose numbers come back exactly.
        bitsandbytes: Whether it needs that package, `OLDEST` or newer, beside torch.
    """

    name: str
    layout: Callable[[Shape], Layout]
    write: Callable[[Tensor, int, Tensors], None]
    read: Callable[[Tensors, Shape, torch.dtype, Tensor | None], Tensor]
    block: int = 1
    largest: float = torch.finfo(torch.float32).max
    keeps: tuple[torch.dtype, ...] = ()
    bitsandbytes: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Format:
        return self

    def pack(self, weight_OI: Tensor) -> dict[str, Tensor]:
        """Quantise a weight, a few rows at a time: beside the result it takes a few MiB.

        Args:
            weight_OI: float64, float32, bfloat16 or float16, on any device. On `meta` or under fake
                tensors the result is of that kind too.

        Raises:
            ValueError: If it is no matrix of such numbers, or one of them is infinite, no number,
                or over `largest`.
            ExperimentError: If the package is missing.
        """
        self.load()
        shape = _matrix(weight_OI)
        tensors = self.blank(shape, weight_OI.device)
        step = codes.rows_to_write(shape, weight_OI.device, self.block)
        with torch.no_grad():
            for first in range(0, shape[0], step):
                part_RI = weight_OI.detach()[first : first + step]
                self._check_range(part_RI)
                self.write(part_RI, first, tensors)
        return tensors

    def unpack(
        self, tensors: Tensors, shape: Shape, dtype: torch.dtype, into: Tensor | None = None
    ) -> Tensor:
        """The weight, (O, I), in `dtype`, without gradient.

        From fp16 and bf16 in their own dtype it is the kept tensor itself: do not write to it.

        Args:
            tensors: What `pack` gave.
            shape: Of the weight.
            dtype: Floating point.
            into: Room for the weight, flat, of that dtype and device and at least
                `room_for(shape)` numbers; None to take new memory.
        """
        with torch.no_grad():
            return self.read(tensors, shape, dtype, into)

    def bytes_of(self, shape: Shape) -> int:
        """What `pack` keeps of a weight of this shape."""
        return sum(prod(size) * dtype.itemsize for size, dtype in self.layout(shape).values())

    def blank(self, shape: Shape, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Tensors of the right shapes and dtypes, with nothing in them yet."""
        layout = self.layout(shape)
        return {k: torch.empty(n, dtype=dtype, device=device) for k, (n, dtype) in layout.items()}

    def check(self, tensors: Tensors, shape: Shape) -> None:
        """Compare names, shapes and dtypes with what a weight of this shape is kept in.

        Raises:
            ValueError: If they differ, or a tensor is strided: kernels read them as they lie.
            ExperimentError: If the format's package is missing.
        """
        self.load(made=True)
        found = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
        wanted = self.layout(shape)
        if found != wanted:
            raise ValueError(
                f"{_shown(found)} is no {self.name} weight of shape {shape}, which is "
                f"{_shown(wanted)}; make it with FORMATS[{self.name!r}].pack"
            )
        for key, tensor in tensors.items():
            if not tensor.is_contiguous():
                raise ValueError(
                    f"{key} has strides {tensor.stride()}, but is read as it lies in memory; "
                    "give it contiguous"
                )

    def load(self, *, made: bool = False) -> None:
        """Import bitsandbytes, if the format needs it.

        Args:
            made: Whether something is frozen to it already.

        Raises:
            ExperimentError: If it is missing; the text is `missing_package`'s.
        """
        if self.bitsandbytes:
            _load(self.name, made)

    def _check_range(self, part_RI: Tensor) -> None:
        if part_RI.is_meta or isinstance(part_RI, FakeTensor):
            return
        wide = torch.promote_types(part_RI.dtype, torch.float32)
        largest = float(torch.linalg.vector_norm(part_RI, torch.inf, dtype=wide))
        if not largest <= self.largest:
            raise ValueError(
                f"a weight of {largest:g} does not go into {self.name}, which takes finite numbers "
                f"up to {self.largest:g}; "
                + ("freeze to bf16" if largest <= BF16_LARGEST else "freeze a stack that is sound")
            )


def _matrix(weight_OI: Tensor) -> Shape:
    if weight_OI.ndim != 2 or not weight_OI.numel() or weight_OI.dtype not in WEIGHTS:
        raise ValueError(
            f"{weight_OI.dtype} of shape {tuple(weight_OI.shape)} cannot be packed; "
            "give a matrix of float64, float32, bfloat16 or float16"
        )
    return (weight_OI.shape[0], weight_OI.shape[1])


def _shown(layout: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    entries = (f"{k} {str(dtype)[6:]}{list(size)}" for k, (size, dtype) in layout.items())
    return ", ".join(entries) or "nothing"


def _plain(name: str, dtype: torch.dtype, *narrower: torch.dtype) -> Format:
    return Format(
        name=name,
        layout=partial(codes.plain_layout, name, dtype),
        write=partial(codes.write_plain, name),
        read=partial(codes.read_plain, name),
        largest=torch.finfo(dtype).max,
        keeps=(dtype, *narrower),
    )


def _blocks(name: str) -> Format:
    return Format(
        name=name,
        layout=partial(codes.block_layout, name),
        write=partial(codes.write_blocks, name),
        read=partial(codes.read_blocks, name),
        block=BLOCK,
        bitsandbytes=True,
    )


FORMATS: dict[str, Format] = {
    "fp32": _plain("fp32", torch.float32, torch.float16, torch.bfloat16),
    "fp16": _plain("fp16", torch.float16),
    "bf16": _plain("bf16", torch.bfloat16),
    "fp8": Format(
        name="fp8",
        layout=partial(codes.row_layout, "fp8", torch.float8_e4m3fn),
        write=codes.write_fp8,
        read=codes.read_fp8,
    ),
    "int8": Format(
        name="int8",
        layout=partial(codes.row_layout, "int8", torch.int8),
        write=codes.write_int8,
        read=codes.read_int8,
        largest=torch.finfo(torch.float16).max,
        bitsandbytes=True,
    ),
    "nf4": _blocks("nf4"),
    "fp4": _blocks("fp4"),
}


def format_called(name: str) -> Format:
    """The format of this name.

    Raises:
        ExperimentError: If there is none; the message lists the known names and the closest.
    """
    if name not in FORMATS:
        raise ExperimentError(f"unknown format {name!r}{closest(name, FORMATS)}")
    return FORMATS[name]


def room_for(shape: Shape) -> int:
    """Numbers that dequantising writes: whole blocks."""
    return -(-shape[0] * shape[1] // BLOCK) * BLOCK


def missing_package(name: str, *, made: bool = False) -> str | None:
    """That a format lacks bitsandbytes here, with the way out; None where nothing is missing.

    Args:
        name: The format's.
        made: Whether something is frozen to it already, so that no other one can be chosen.
    """
    lacks = lacking() if format_called(name).bitsandbytes else None
    return lacks and f"{name} {lacks}{'' if made else ', or choose fp16, bf16 or fp8'}"


def lacking() -> str | None:
    """What is wrong with bitsandbytes here, with the command that mends it; None for nothing."""
    wanted = f"needs {PACKAGE} {'.'.join(map(str, OLDEST))} or newer"
    if importlib.util.find_spec(PACKAGE) is None:
        return f"{wanted}, which is not installed; {WAY_OUT}"
    version = importlib.metadata.version(PACKAGE)
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return f"{wanted}, and {version} is installed; {WAY_OUT}"
    return None


@cache
def _load(name: str, made: bool) -> None:
    missing = missing_package(name, made=made)
    if missing:
        raise ExperimentError(missing)
    codes.operators()
