"""Panels without a kernel: their widgets are objects, whose traits are set and read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import stackwise as sw


@pytest.fixture
def shipped() -> list[sw.Run]:
    """The finished runs that ship."""
    return sw.runs_in(Path(sw.__file__).parents[1] / "data" / "runs")


@pytest.fixture
def tiny() -> sw.Experiment:
    """Four blocks of width 16 on synthetic text; 16 steps in all."""
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 4, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        curriculum="left_to_right",
        optim={"batch": 4, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 16 * 4 * 16},
        eval={"points": 4, "windows": 8, "draws": 1, "final": 16},
    )


@pytest.fixture
def place(tmp_path) -> Iterator[sw.Placement]:
    """Runs in a folder of the test's own; none of them outlives it."""
    yield sw.Placement(runs_dir=str(tmp_path / "runs"), device="cpu", threads=1)
    for run in sw.runs_in(tmp_path / "runs"):
        run.stop(now=True)
        run.wait(60)
