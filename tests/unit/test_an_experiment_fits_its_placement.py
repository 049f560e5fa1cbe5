"""What an experiment cannot be carried out with is refused when its run is made, all at once."""

from __future__ import annotations

import importlib.util

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.rules import check_placement
from stackwise.training.start import create_run

ADDED_UP = (
    "placement.micro_batch: 4 < optim.batch=32 adds up gradients over forward passes, and with "
    "optim.grads=in_backward none is kept; leave micro_batch empty, or use optim.grads=whole"
)
NOT_INSTALLED = (
    "optim.name: lion8bit needs bitsandbytes 0.50 or newer, which is not installed; "
    'pip install "stackwise[quant]", or use optim.name=adamw'
)
IN_BACKWARD = {"grads": "in_backward", "clip": None}


@pytest.fixture
def without_bitsandbytes(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else found(name)
    )


def refusal(optim, **placement) -> str:
    with pytest.raises(ExperimentError) as error:
        check_placement(sw.Experiment(optim=optim), sw.Placement(**placement))
    return str(error.value)


def test_steps_in_backward_add_no_gradients_up() -> None:
    assert refusal(IN_BACKWARD, micro_batch=4) == ADDED_UP
    for micro in (None, 32, 64):
        check_placement(sw.Experiment(optim=IN_BACKWARD), sw.Placement(micro_batch=micro))
    check_placement(sw.Experiment(), sw.Placement(micro_batch=4))


def test_an_optimizer_needs_its_package(without_bitsandbytes) -> None:
    assert refusal({"name": "lion8bit"}) == NOT_INSTALLED
    both = refusal({"name": "lion8bit", **IN_BACKWARD}, micro_batch=4)
    assert both == f"{ADDED_UP}\n{NOT_INSTALLED}"


def test_before_a_folder_is_made(tmp_path, without_bitsandbytes) -> None:
    exp = sw.Experiment(optim={"name": "lion8bit"}, data={"corpus": {"kind": "markov"}})
    with pytest.raises(ExperimentError, match=r"needs bitsandbytes 0\.50 or newer"):
        create_run(exp, sw.Placement(runs_dir=str(tmp_path / "runs"), device="cpu"))
    assert not (tmp_path / "runs").exists()
