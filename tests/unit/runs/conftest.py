"""A disk that is full, and a run that is only made."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stackwise.runs import make_run


@pytest.fixture
def full_disk():
    """`with full_disk(room):` the kernel lets no file grow beyond `room` bytes."""

    @contextmanager
    def limited(room: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture
def made(tmp_path):
    """`made()`: a run of two stages in `tmp_path/runs`; arguments replace those of `make_run`."""

    def make(run_id: str = "toy-1234abcd", **changes):
        whole = {
            "experiment": "title: toy\n",
            "placement": "device: cpu\n",
            "stages": [{"name": "s0"}, {"name": "s1"}],
            "plan": [{"stage": 0, "name": "s0", "bytes": {"weights": 8}}],
            "facts": {"seed": 0, "data": "abc"},
        }
        return make_run(tmp_path / "runs", run_id, **{**whole, **changes})

    return make
