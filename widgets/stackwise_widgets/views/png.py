"""Small pictures of matrices as PNG in a data URI: one byte a cell, some of them see-through."""

from __future__ import annotations

import base64
import struct
import zlib
from functools import lru_cache

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

SHADES = 255  # the last of 256 colours is see-through
SCALE = "cividis"  # the same to eyes that do not tell red from green, and monotone in grey


def matrix_png(value_RC: NDArray[np.float64], low: float, high: float) -> str:
    """A matrix as a picture of one pixel a cell, for `src` or `href`.

    Args:
        value_RC: NaN where there is nothing: see-through.
        low: Of the darkest shade.
        high: Of the lightest.
    """
    span = high - low if high > low else 1.0
    shade_RC = np.clip((value_RC - low) / span, 0, 1) * (SHADES - 1)
    index_RC = np.where(np.isfinite(value_RC), np.nan_to_num(shade_RC), SHADES).round()
    rows, columns = value_RC.shape
    lines = np.zeros((rows, columns + 1), np.uint8)  # each row begins with its filter: none
    lines[:, 1:] = index_RC.astype(np.uint8)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    body = [
        _chunk(b"IHDR", header),
        _chunk(b"PLTE", palette()),
        _chunk(b"tRNS", b"\xff" * SHADES + b"\x00"),
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(body)).decode()
    return f"data:image/png;base64,{data}"


@lru_cache(maxsize=1)
def palette() -> bytes:
    """The shades, three bytes each, and one more for what is see-through."""
    colours = mpl.colormaps[SCALE](np.linspace(0, 1, SHADES))[:, :3]
    return (colours * 255).round().astype(np.uint8).tobytes() + b"\x00\x00\x00"


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
