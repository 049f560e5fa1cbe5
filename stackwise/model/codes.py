"""How a weight becomes codes and scales, and comes back: plain, by rows, in blocks of 64.

One pair of functions per way. `write` takes a few rows at a time, so that quantising needs little
memory beside its result; the codes are those of the whole matrix, bit for bit. The kernels are
torch's and bitsandbytes', the layout is ours, and the same on every device. What the formats are
called and what they take is in `formats.py`; the layer that computes with them is `frozen.py`.

Shapes: O outputs, I inputs, R rows in hand, N blocks of 64 numbers.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from functools import cache
from math import gcd
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Shape = tuple[int, int]
Layout = dict[str, tuple[tuple[int, ...], torch.dtype]]

BLOCK = 64  # numbers that share one scale in 4 bit: bitsandbytes' default
E4M3_LARGEST = 448.0
SIGN_AND_7 = -0x4080  # bits 15 and 13 to 7 of an int16
CPU_WRITES, CPU_READS = 1 << 17, 1 << 18  # numbers in hand: what stays in a cache
FEWEST_READS = 1 << 15  # of fewer, calling the operator takes longer than what it does
ELSEWHERE = 1 << 24  # what keeps an accelerator busy
SCALE = "scale"


def operators() -> Any:
    """The operators of bitsandbytes, imported when they are first needed."""
    if not torch.compiler.is_compiling():  # by then a layer has asked, when it was made
        _load()
    return torch.ops.bitsandbytes


@cache
def _load() -> None:
    """Without what it says on import of a kernel that only its own layers would use."""
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.addFilter(_silent)
    try:
        importlib.import_module("bitsandbytes")
    finally:
        log.removeFilter(_silent)


def _silent(record: logging.LogRecord) -> bool:
    return "gemm_4bit_forward" not in record.getMessage()


def rows_to_write(shape: Shape, device: torch.device, block: int) -> int:
    """Rows to quantise at once: whole blocks of `block` numbers."""
    step = block // gcd(block, shape[1])
    return max(1, _numbers(device, CPU_WRITES) // shape[1] // step) * step


def rows_to_read(shape: Shape, device: torch.device) -> int:
    """Rows to dequantise at once."""
    return max(1, _numbers(device, _to_read(shape)) // shape[1])


def _to_read(shape: Shape) -> int:
    """Numbers to dequantise at once on a CPU: of a small matrix few, or they leave gaps as it does.

    See `workspace.py`.
    """
    return min(CPU_READS, max(FEWEST_READS, shape[0] * shape[1] // 16))


def _numbers(device: torch.device, on_cpu: int) -> int:
    return on_cpu if device.type == "cpu" else ELSEWHERE


def plain_layout(name: str, dtype: torch.dtype, shape: Shape) -> Layout:
    """The weight in another dtype."""
    return {name: (shape, dtype)}


def write_plain(name: str, part_RI: Tensor, first: int, into: Tensors) -> None:
    """Cast."""
    into[name][first : first + len(part_RI)] = part_RI


def read_plain(
    name: str, tensors: Tensors, shape: Shape, dtype: torch.dtype, into: Tensor | None
) -> Tensor:
    """Cast back. With the dtype it is kept in, the very tensor: its result aliases."""
    kept_OI = tensors[name]
    if into is None or kept_OI.dtype == dtype:
        return kept_OI.to(dtype)
    return _room(kept_OI, shape, dtype, into).copy_(kept_OI)


def _room(like: Tensor, shape: Shape, dtype: torch.dtype, into: Tensor | None) -> Tensor:
    """A matrix to write to: the beginning of `into`, or a new one."""
    if into is None:
        return like.new_empty(shape, dtype=dtype)
    return into[: shape[0] * shape[1]].view(shape)


def row_layout(name: str, dtype: torch.dtype, shape: Shape) -> Layout:
    """Codes of one byte, and a float32 scale per row."""
    return {name: (shape, dtype), SCALE: (shape[:1], torch.float32)}


def write_fp8(part_RI: Tensor, first: int, into: Tensors) -> None:
    """float8_e4m3fn of w / scale, where a row's largest number becomes 448, the largest code."""
    rows = slice(first, first + len(part_RI))
    part_RI = part_RI.float()
    largest_R = torch.linalg.vector_norm(part_RI, torch.inf, dim=1)
    scale_R = (largest_R / E4M3_LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
    into[SCALE][rows] = scale_R
    into["fp8"][rows] = (part_RI / scale_R[:, None]).to(torch.float8_e4m3fn)


def read_fp8(tensors: Tensors, shape: Shape, dtype: torch.dtype, into: Tensor | None) -> Tensor:
    """A code times its scale, rounded once from float32.

    A code's bits, moved to where float16 has its exponent, are the number over 256: exact, and on a
    CPU several times as fast as torch's cast (`benchmarks/formats.py` prints the ratio).
    """
    code_OI, scale_O1 = tensors["fp8"].view(torch.int8), tensors[SCALE][:, None] * 256
    weight_OI = _room(code_OI, shape, dtype, into)
    step = rows_to_read(shape, code_OI.device)
    for first in range(0, shape[0], step):
        rows = slice(first, first + step)
        bits_RI = code_OI[rows].to(torch.int16).bitwise_left_shift_(7).bitwise_and_(SIGN_AND_7)
        torch.mul(bits_RI.view(torch.float16), scale_O1[rows], out=weight_OI[rows])
    return weight_OI


def write_int8(part_RI: Tensor, first: int, into: Tensors) -> None:
    """round(127 w / largest of the row), of float16 numbers, as bitsandbytes' layer does."""
    rows = slice(first, first + len(part_RI))
    code_RI, largest_R, _ = operators().int8_vectorwise_quant(part_RI.half())
    into["int8"][rows], into[SCALE][rows] = code_RI, largest_R


def read_int8(tensors: Tensors, shape: Shape, dtype: torch.dtype, into: Tensor | None) -> Tensor:
    """A code times its row's largest / 127, rounded once from float32."""
    code_OI, largest_O = tensors["int8"], tensors[SCALE]
    weight_OI = _room(code_OI, shape, dtype, into)
    step = rows_to_read(shape, code_OI.device)
    for first in range(0, shape[0], step):
        rows = slice(first, first + step)
        weight_OI[rows] = operators().int8_vectorwise_dequant(code_OI[rows], largest_O[rows])
    return weight_OI


def block_layout(name: str, shape: Shape) -> Layout:
    """Two codes to a byte, the first in the high half, and a float32 scale per 64 numbers.

    Numbers are counted along rows; a last block that is not full is padded.
    """
    count_N = -(-shape[0] * shape[1] // BLOCK)
    return {name: ((count_N, BLOCK // 2), torch.uint8), SCALE: ((count_N,), torch.float32)}


def write_blocks(name: str, part_RI: Tensor, first: int, into: Tensors) -> None:
    """The nearest of 16 values times the block's largest number; `first` begins a block."""
    start = first * part_RI.shape[1]
    flat = part_RI.reshape(-1)
    flat = flat.float() if flat.dtype == torch.float64 else flat
    code, largest_N = operators().quantize_4bit(flat, BLOCK, name, torch.uint8)
    packed = into[name].view(-1)
    end = start // 2 + code.numel()
    packed[start // 2 : end] = code.view(-1)
    into[SCALE][start // BLOCK : start // BLOCK + largest_N.numel()] = largest_N
    packed[end : -(-end // (BLOCK // 2)) * (BLOCK // 2)] = 0


def read_blocks(
    name: str, tensors: Tensors, shape: Shape, dtype: torch.dtype, into: Tensor | None
) -> Tensor:
    """One of 16 values, times the block's largest number.

    bitsandbytes is asked for a matrix of one block per row, whatever the weight's shape: its CPU
    kernel (0.50.2) gives wrong numbers for rows of 96, where a block lies across two rows, and an
    odd number of columns sends it to a compiler.
    """
    code_NB, largest_N = tensors[name], tensors[SCALE]
    made = torch.float32 if dtype == torch.float64 else dtype

    def values(blocks: slice) -> Tensor:
        ours = (len(largest_N[blocks]), BLOCK)
        operator = operators().dequantize_4bit
        value_NB: Tensor = operator(code_NB[blocks], largest_N[blocks], BLOCK, name, ours, made)
        return value_NB.view(-1)

    if into is None:
        return values(slice(None))[: shape[0] * shape[1]].view(shape).to(dtype)
    step = _to_read(shape) // BLOCK
    for first in range(0, len(largest_N), step):
        part = values(slice(first, first + step))
        into[first * BLOCK : first * BLOCK + len(part)] = part
    return _room(code_NB, shape, dtype, into)
