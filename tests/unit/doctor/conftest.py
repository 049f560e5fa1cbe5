"""A visit to this machine's processor, whose tasks are called in this very process."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from stackwise.planner.doctor.checks import Visit


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def visit(tmp_path: Path) -> Callable[..., Visit]:
    """Makes a visit; `call` is what calls tasks."""

    def make(call: Any = None, *, device: str = "cpu", **keys: Any) -> Visit:
        usual = {"memory_bytes": 256 << 20, "until": time.monotonic() + 600}
        here = call or (lambda task, **given: task(**given))
        told = lambda line: None  # noqa: E731
        return Visit(device, tmp_path, call=here, tell=told, **{**usual, **keys})

    return make
