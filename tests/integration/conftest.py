"""A whole experiment that trains in about a second."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

import stackwise as sw

CURRICULA = {
    "end_to_end": {},
    "left_to_right": {},
    "right_to_left": {"masking": {"bands": "equal_mass"}},
    "grow": {"curriculum": {"name": "grow", "optimizer_state": "keep", "lr": "rewarm"}},
    "block_coordinate": {"curriculum": {"name": "block_coordinate", "optimizer_state": "keep"}},
    "subnetwork": {"curriculum": {"name": "subnetwork", "lengths": (3, 4)}},
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def from_benchmarks() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of `benchmarks/` by its name, which those beside it are found by, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield importlib.import_module


@pytest.fixture
def tiny() -> sw.Experiment:
    """Four blocks of width 16 on synthetic text; 16 steps in all."""
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 4, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 16 * 4 * 16},
        eval={"points": 4, "windows": 8, "draws": 1, "final": 16},
    )


@pytest.fixture(params=CURRICULA)
def arm(request: pytest.FixtureRequest, tiny: sw.Experiment) -> sw.Experiment:
    """The tiny experiment under each curriculum."""
    return tiny.replace(**{"curriculum": request.param, **CURRICULA[request.param]})


@pytest.fixture
def place(tmp_path) -> sw.Placement:
    """Runs in a folder of the test's own."""
    return sw.Placement(runs_dir=str(tmp_path / "runs"), device="cpu")
