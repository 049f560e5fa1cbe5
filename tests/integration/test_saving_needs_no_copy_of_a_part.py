"""Peak memory while saving: far under one part."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from stackwise.training.checkpoint import save

TENSORS, SIDE = 16, 1024
TENSOR_BYTES = SIDE * SIDE * 4


def peak_bytes() -> int:
    """The most that was resident since the last reset."""
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


def growth_bytes(folder: Path, strided: bool) -> int:
    """How far saving two parts raises this process's peak."""
    parts = {
        part: {
            str(i): torch.randn(SIDE, SIDE).t() if strided else torch.randn(SIDE, SIDE)
            for i in range(TENSORS)
        }
        for part in ("s0", "s1")
    }
    save(folder / "warm", {"s0": {"w": torch.randn(9)}})
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    save(folder / "rack", parts)
    return peak_bytes() - before


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of peak memory")
@pytest.mark.parametrize(
    ("strided", "most_bytes"),
    # Written from where it lies; or copied one tensor at a time, which malloc may hold on to.
    [(False, TENSOR_BYTES), (True, TENSORS * TENSOR_BYTES // 2)],
)
def test_saving_never_copies_a_part(tmp_path, strided, most_bytes) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            grown = growth_bytes(tmp_path, strided)
            status = 0 if grown < most_bytes else 2
            os.write(2, f"grew by {grown} bytes\n".encode())
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
