"""A tied head gets a table of its own where it and the embedding part; bytes and counts say so."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.memory.flops import vocab_size
from stackwise.stage import untied_from

CASES = {
    "end_to_end": ({}, None),
    "left_to_right": ({}, 1),
    "always": ({"curriculum": {"name": "left_to_right", "embedding": "always"}}, None),
    "right_to_left": ({}, 1),
    "grow": ({}, None),
}


@pytest.fixture(params=CASES)
def case(request, tiny):
    changes, stage = CASES[request.param]
    exp = tiny.replace(**{"curriculum": request.param, "rack": {"tied": True}} | changes)
    return exp, stage


def test_the_stage_from_which_it_is_untied_follows_from_the_stages(case) -> None:
    exp, stage = case
    assert untied_from(exp.rack, sw.stages(exp)) == stage
    untied = exp.replace(rack={"tied": False})
    assert untied_from(untied.rack, sw.stages(untied)) is None, "it was never tied"


def test_predicted_bytes_and_parameters_are_those_measured(case, place) -> None:
    exp, stage = case
    run = sw.train(exp, place)
    assert [event["stage"] for event in run.events("untied")] == ([] if stage is None else [stage])
    memory = run.memory().set_index(["stage", "category"])
    for (number, category), row in memory.iterrows():
        if category in ("weights", "gradients", "average"):
            assert row["measured"] == row["predicted"], (number, category)
    table = vocab_size(exp) * exp.rack.d_model
    count = sw.count_parameters(exp.rack, exp.attention, vocab_size(exp))
    assert run.result()["parameters"] == count + table * (stage is not None)


def short(exp):
    yield sw.Stage(path=("s0", "s1"))


def test_stacks_that_no_stage_added_are_not_counted(tiny, place, monkeypatch) -> None:
    monkeypatch.setitem(sw.CURRICULA, "short", short)
    run = sw.train(tiny.replace(curriculum="short"), place)
    two = tiny.replace(rack={"stacks": 2})
    assert run.result()["parameters"] == sw.count_parameters(two.rack, two.attention, 256)
