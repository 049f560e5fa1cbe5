"""Public functions take a kind by name, as a mapping, or as parameters, and say what is wrong."""

import re
from pathlib import Path

import numpy as np
import pytest

import stackwise as sw
from stackwise import ExperimentError
from stackwise.model.attention import ATTENTION
from stackwise.objective import OBJECTIVES

SHAPE = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2)
WINDOWS_NT = np.arange(24).reshape(3, 8)


@pytest.mark.parametrize(
    ("given", "params"),
    [
        ("mha", ATTENTION["mha"].params()),
        ("mla:3", ATTENTION["mla"].params(kv_rank=3)),
        ({"kind": "kernel", "features": 4}, ATTENTION["kernel"].params(features=4)),
    ],
)
def test_a_rack_and_its_count_take_attention_by_name(given, params):
    rack = sw.Rack(SHAPE, given, 24)
    assert rack.attention == params
    held = sum(parameter.numel() for parameter in rack.parameters())
    counts = {sw.count_parameters(SHAPE, kind, 24) for kind in (given, params)}
    assert counts == {held - rack.embedding.special.numel()}


@pytest.mark.parametrize("given", ["clm", {"kind": "clm"}, OBJECTIVES["clm"].params()])
def test_evaluation_takes_the_objective_by_name(given):
    found = sw.evaluate(sw.Rack(SHAPE, "mha", 24), WINDOWS_NT, 24, objective=given)
    assert found.estimate == "exact"


def test_an_unknown_name_is_answered_with_those_that_are_known():
    for call in (
        lambda: sw.Rack(SHAPE, "mhaa", 24),
        lambda: sw.count_parameters(SHAPE, "mhaa", 24),
    ):
        with pytest.raises(sw.ExperimentError) as error:
            call()
        assert str(error.value) == (
            f"unknown attention 'mhaa'; did you mean 'mha'? known: {', '.join(ATTENTION)}"
        )
    with pytest.raises(sw.ExperimentError) as error:
        sw.evaluate(sw.Rack(SHAPE, "mha", 24), WINDOWS_NT, 24, objective="difusion")
    assert str(error.value) == (
        f"unknown objective 'difusion'; did you mean 'diffusion'? known: {', '.join(OBJECTIVES)}"
    )


def test_stages_and_studies_take_a_preset_by_name():
    assert sw.stages("toy") == sw.stages(sw.Experiment.preset("toy"))
    study = sw.Study("toy", placement="cpu", more={"other": "toy"}, seeds=range(2))
    assert (len(study.arms), study.seeds, study.placement.device) == (2, (0, 1), "cpu")


def test_what_is_no_experiment_says_what_is_one():
    with pytest.raises(ExperimentError, match=r"experiment: 'toyy' is no preset .*'toy'\? known"):
        sw.stages("toyy")
    with pytest.raises(ExperimentError) as error:
        sw.Study(3)
    assert str(error.value) == (
        "base: 3 is no experiment; give sw.Experiment(...) or a preset's name"
    )


def test_a_folder_may_be_a_path():
    assert sw.Placement(runs_dir=Path("x"), data_dir=Path("y")) == sw.Placement(
        runs_dir="x", data_dir="y"
    )


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (lambda: sw.Choice(print, object), "params: <class 'object'> is no class of parameters"),
        (lambda: sw.Choice(print, sw.Params()), "is no class of parameters; derive one from sw.Pa"),
    ],
)
def test_an_entry_that_cannot_be_chosen_is_refused_as_it_is_made(entry, why) -> None:
    with pytest.raises(sw.ExperimentError, match=re.escape(why)):
        entry()
