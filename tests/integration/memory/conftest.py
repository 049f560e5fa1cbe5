"""Processes of their own: what a test before it left in the heap would hide what is allocated."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackwise.memory import meter

from ...warm import forked_json

HERE = str(Path(__file__).parent)
# malloc is told to hand back what is freed, from 64 KiB on. Left to itself it keeps pieces of up to
# 32 MiB, which are whole tensors here and none at the widths that this is about.
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.fixture
def alone(tmp_path: Path) -> Callable[..., Any]:
    """Runs code that imports `peak` in a process of its own; gives what it prints, as JSON."""
    if not (meter.STATUS.exists() and meter.CLEAR_REFS.exists()):
        pytest.skip("only Linux keeps a high-water mark of memory")

    def run(code: str, *, malloc: dict[str, str] = GIVES_BACK, **facts: Any) -> Any:
        folder = tmp_path / "alone"
        folder.mkdir()
        told = json.dumps({**facts, "folder": str(folder)})
        there = f"import sys; sys.path.insert(0, {HERE!r})\n"
        found = forked_json(there + code, told, malloc=malloc)
        shutil.rmtree(folder)  # hundreds of megabytes, which pytest would keep
        return found

    return run
