"""Runs for the panels that look at them: the shipped ones, and a tiny one with its stages kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import stackwise as sw
from stackwise_widgets.inspection.one_rack import RACK

SHIPPED = Path(__file__).parents[4] / "data" / "runs"


def experiment(**change: Any) -> sw.Experiment:
    """Three stacks of two blocks, trained in a second."""
    return sw.Experiment(
        title="look",
        rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 24},
        optim={"batch": 4},
        budget={"tokens": 9 * 96},
        eval={"points": 3, "windows": 2, "final": 2},
    ).replace(**change)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., sw.Run]:
    """`trained_once(attention="mla")`: such a run, trained in this session; not to be changed."""
    folder, made = tmp_path_factory.mktemp("looked_at"), {}

    def make(**change: Any) -> sw.Run:
        exp = experiment(**change)
        if exp.hash not in made:
            place = sw.Placement(runs_dir=str(folder), device="cpu", threads=1)
            made[exp.hash] = sw.train(exp, place)
        return made[exp.hash]

    return make


@pytest.fixture
def kept(trained_once: Callable[..., sw.Run]) -> sw.Run:
    """A run whose stages' ends are kept."""
    return trained_once()


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """The shipped runs, in a folder where they may be changed."""
    return Path(shutil.copytree(SHIPPED, tmp_path / "runs"))


@pytest.fixture(autouse=True)
def no_widgets_of_before() -> None:
    """Tests look at all widgets that exist; those that others left may hold closed ones."""
    _instances.clear()


@pytest.fixture(autouse=True)
def no_rack_is_left() -> Iterator[None]:
    yield
    RACK.drop()
