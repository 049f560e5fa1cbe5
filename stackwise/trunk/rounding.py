"""What a trunk's output is rounded to where it is kept, and its bytes.

`fp8` is float8_e4m3fn with one float32 scale per token. The scale is the power of two that brings
the token's largest value into (224, 448]: dividing by it and multiplying with it are then exact in
every dtype, and rounding what was rounded changes nothing.

Shapes: B rows, T tokens, D width, N bytes of a row: its values, then for `fp8` its scales.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stackwise.errors import closest

STORED = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
SCALE_BYTES = 4
LARGEST_MANTISSA = 0.875  # 448, the largest float8_e4m3fn, is 0.875 * 2 ** 9
LARGEST_EXPONENT = 9


def check_dtype(dtype: str) -> None:
    """Raise if it is not one of those that rows can be kept in.

    Raises:
        ValueError: Then.
    """
    if dtype not in STORED:
        raise ValueError(f"dtype: {dtype!r} is not known{closest(dtype, STORED)}")


def row_bytes(tokens: int, width: int, dtype: str) -> int:
    """Bytes of one row of `tokens` tokens."""
    scales = SCALE_BYTES * tokens if dtype == "fp8" else 0
    return tokens * width * STORED[dtype].itemsize + scales


def round_to(x: Tensor, dtype: str) -> Tensor:
    """`x` as it is after it was kept: what writing and reading give, to the last bit.

    Args:
        x: (..., D), float32 or bfloat16. For `fp8` each vector of D has a scale; one that holds an
            infinity or NaN becomes NaN.
        dtype: One of `STORED`.

    Returns:
        A tensor like `x`.

    Raises:
        ValueError: If the dtype is not known.
    """
    check_dtype(dtype)
    if dtype != "fp8":
        return x.to(STORED[dtype]).to(x.dtype)
    codes, scale = fp8(x)
    return codes.to(x.dtype).mul_(scale.to(x.dtype)[..., None])


def fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of `x`, float8_e4m3fn (..., D), and its scales, float32 (...)."""
    mantissa, exponent = torch.frexp(x.abs().amax(-1).float())
    power = exponent - LARGEST_EXPONENT + (mantissa > LARGEST_MANTISSA)
    bits = (power.clamp(min=-126) + 127) << 23  # of the float32 that is 2 ** power
    scale = torch.where(mantissa.isfinite(), bits.view(torch.float32), torch.nan)
    return (x.float() / scale[..., None]).to(torch.float8_e4m3fn), scale


def encode(x_BTD: Tensor, dtype: str) -> Tensor:
    """Rows as bytes, uint8 (B, N), on the CPU; a view where nothing is to be rounded."""
    rows = len(x_BTD)
    if dtype == "fp8":
        codes, scale = fp8(x_BTD)
        parts = [_bytes(codes, rows), _bytes(scale, rows)]
        return torch.cat(parts, 1)
    return _bytes(x_BTD.to(STORED[dtype]), rows)


def _bytes(x: Tensor, rows: int) -> Tensor:
    return x.contiguous().reshape(rows, -1).view(torch.uint8)


def decode(bytes_BN: Tensor, dtype: str, out_BTD: Tensor) -> None:
    """Fill `out_BTD`, float32 or bfloat16, with rows from their bytes."""
    if dtype != "fp8":
        out_BTD.copy_(bytes_BN.view(STORED[dtype]).view(out_BTD.shape))
        return
    values = out_BTD.shape[1] * out_BTD.shape[2]
    codes_BTD = bytes_BN[:, :values].view(STORED[dtype]).view(out_BTD.shape)
    scale_BT = bytes_BN[:, values:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    out_BTD.copy_(codes_BTD).mul_(scale_BT.to(out_BTD.dtype)[..., None])
