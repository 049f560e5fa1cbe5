"""While a run is open, what a tensor took goes back to the system when it is freed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from stackwise.memory.heap import SETTINGS

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's malloc")

# Of 64 tensors of 1 MiB every other one is freed: holes that a heap keeps.
CHILD = """
import sys
from contextlib import nullcontext
from pathlib import Path
import torch
from stackwise.memory.heap import apart

def resident():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("RssAnon:")[2].split()[0]) * 1024

torch.empty(4 << 20)  # 16 MiB, freed: what glibc's own threshold is from here on
with apart() if sys.argv[1] == "apart" else nullcontext():
    held = [torch.ones(1 << 18) for _ in range(64)]
    before = resident()
    del held[::2]
    print(before - resident())
"""
FREED = 32 << 20


def given_back(how: str, **environment: str) -> int:
    """Bytes that the system has again, of the 32 MiB that were freed."""
    kept = {key: os.environ[key] for key in os.environ.keys() - set(SETTINGS)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, how],
        env=kept | environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def test_it_is_given_back() -> None:
    assert given_back("apart") > 0.95 * FREED


def test_a_heap_keeps_it() -> None:
    """The control: what the threshold is for; and one that the environment sets is left alone."""
    assert given_back("as it is") < 0.05 * FREED
    assert given_back("apart", MALLOC_MMAP_THRESHOLD_="33554432") < 0.05 * FREED
