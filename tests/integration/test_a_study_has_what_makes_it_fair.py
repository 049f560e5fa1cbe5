"""What a study adds by itself: a decayed control, equal bytes, one grid, and both readings."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.planner.hardware import HARDWARE
from stackwise.study import spent
from stackwise.study.budgets import training_seconds
from stackwise.study.controls import decays
from stackwise.training.start import TrainingError

PLAIN = {"lr_grid": None, "same_bytes": False}


@pytest.fixture
def two(tiny) -> sw.Experiment:
    """Two blocks and eight steps: less than half of the tiny one."""
    return tiny.replace(rack={"stacks": 2}, budget={"tokens": 8 * 4 * 16}, eval={"points": 2})


def test_a_control_is_added_and_decays_though_nothing_else_does(two) -> None:
    flat = two.replace(curriculum="left_to_right", optim={"schedule": "constant"})
    study = sw.Study(flat)
    assert [arm.name for arm in study.arms] == ["base", "control", "same bytes"]
    assert study.control.name == "control" and decays(study.control.experiment)
    assert study.control.experiment.curriculum.choice == "end_to_end"
    assert study.control.experiment.rack == flat.rack
    assert not decays(study.arms[0].experiment)


def test_an_end_to_end_arm_that_does_not_decay_is_no_control(two) -> None:
    schedules = ["constant", "cosine"]
    study = sw.Study(two, vary={"optim.schedule": schedules})
    assert study.control.name == "cosine" and len(study.arms) == 2
    study = sw.Study(two, vary={"optim.schedule": schedules[:1]})
    assert study.control.name == "control"
    assert study.control.experiment.optim.schedule == "wsd"


def test_the_arm_of_equal_bytes_is_the_deepest_rack_in_the_memory_of_the_most_saving(tiny) -> None:
    study = sw.Study(tiny, vary={"curriculum": ["end_to_end", "left_to_right", "grow"]})
    place = sw.Placement(device="cpu")
    taken = {arm.name: sw.training_bytes(arm.experiment, place) for arm in study.arms}
    assert taken["same bytes"] <= taken["left_to_right"] < taken["end_to_end"]
    rack = study.arms[-1].experiment.rack
    more = {"stacks": rack.stacks * rack.blocks_per_stack + 1, "blocks_per_stack": 1}
    deeper = study.arms[-1].experiment.replace(rack=more)
    assert sw.training_bytes(deeper, place) > taken["left_to_right"]
    assert len(sw.Study(tiny, vary={"curriculum": ["end_to_end", "grow"]}).arms) == 2
    assert sw.Study(study.arms[1].experiment, same_bytes=False).arms[-1].name == "control"


def test_arms_that_see_other_data_are_refused_before_anything_trains(two) -> None:
    other = two.replace(data={"corpus": {"kind": "markov", "size_bytes": 20_000}})
    with pytest.raises(ExperimentError, match=r"arm 'b': data.corpus: .* is not .*'base'"):
        sw.Study(two, more={"b": other})
    with pytest.raises(ExperimentError, match=r"arm '32': data\.seq_len: 32 is not 16"):
        sw.Study(two, vary={"data.seq_len": [16, 32]})


def test_the_grid_is_the_same_for_all_and_its_cost_is_counted_apart(two, place) -> None:
    study = sw.Study(
        two,
        vary={"curriculum": ["end_to_end", "left_to_right"]},
        seeds=(0, 1),
        lr_grid=(0.001, 0.02),
        same_bytes=False,
        placement=place,
    )
    result = study.run()
    assert {(tried.arm, tried.rate) for tried in result.tuning} == {
        (arm, rate) for arm in ("end_to_end", "left_to_right") for rate in (0.001, 0.02)
    }
    assert {tried.seed for tried in result.tuning} == {1000}
    rows = result.summary().set_index("arm")
    for name in rows.index:
        mine = [tried for tried in result.tuning if tried.arm == name]
        found = {tried.run.result()["bits_per_byte"]: tried.rate for tried in mine}
        best = found[min(found)]
        assert rows["lr"][name] == best
        for arm, _, run in result.runs:
            assert arm.name != name or run.experiment.optim.lr == best
        assert rows["tuning_flops"][name] == sum(t.run.result()["flops"] for t in mine)
        assert "of its grid" in rows["flags"][name], "of two rates one is always at the edge"
    assert "learning rates: 0.001, 0.02, tried on every arm with seed 1000" in str(result)
    assert len(study.run().to_frame()) == 4
    again = sw.StudyResult.load(study.folder)
    assert str(again) == str(result), "read from the folders alone"
    assert again.to_json()["verdict"] == result.verdict()
    assert sw.Study.load(study.folder).result().to_frame().equals(result.to_frame())


def test_a_rate_that_diverges_loses_and_ends_nothing(two, place) -> None:
    study = sw.Study(two, lr_grid=(0.01, 0.02), placement=place)

    def breaks(work, numbers):
        if work.exp.optim.lr == 0.02:
            raise TrainingError("step 1: the loss is nan")

    result = study.run(on_step=breaks)
    assert len(result.tuning) == 2 and len(result.failures) == 1
    assert "base, seed 1000 at optim.lr=0.02" in result.failures[0]
    assert result.summary()["lr"].tolist() == [0.01]
    assert result.summary()["n"].tolist() == [1]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"lr_grid": ()}, "lr_grid: () is no list of learning rates, as (1e-3, 2e-3) is; None for "
                          "no grid"),
        ({"lr_grid": (1, -1)}, "lr_grid: -1 must be a number over 0"),
        ({"lr_grid": {"of": [1]}}, "lr_grid: {'of': [1]} has another key than times, as in "
                                   "{'times': (0.5, 1, 2)}"),
        ({"lr_grid": (1e-3,), "vary": {"optim.lr": [1e-3]}},
         "lr_grid: is tried on every arm, and optim.lr is what varies; leave one of them out"),
        ({"effect": 0}, "effect: 0 must be over 0, in bits per byte"),
        ({"tuning_seed": -1}, "tuning_seed: -1 must be a whole number of 0 or more, under "
                              "2147483648"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(two, given, expected) -> None:
    with pytest.raises(ExperimentError) as error:
        sw.Study(two, **given)
    assert str(error.value) == expected


def test_multiples_are_of_every_rate_that_an_arm_names(two) -> None:
    fast = two.replace(optim={"lr": 0.1})
    assert sw.Study(two).rates == (0.005, 0.01, 0.02)
    assert sw.Study(two, more={"fast": fast}).rates == (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    assert sw.Study(two, vary={"optim.lr": [0.1, 0.2]}).rates == ()


def test_equal_seconds_are_worked_out_once_and_stay(tiny, place) -> None:
    place = sw.Placement(runs_dir=place.runs_dir, device="auto")
    kinds = ["end_to_end", "left_to_right"]
    big = tiny.replace(budget={"tokens": 400 * 4 * 16})
    given = {"vary": {"curriculum": kinds}, "equal": "seconds", "placement": place}
    study = sw.Study(big, hardware="h200", **given)
    assert study.calibrated.hardware == "h200"
    card = place.replace(device="cuda")
    target = training_seconds(big, card, HARDWARE["h200"])
    for arm in study.arms:
        taken = training_seconds(arm.experiment, card, HARDWARE["h200"])
        step = taken * 64 / arm.experiment.budget.tokens
        assert abs(taken - target) <= step, arm.name
    tokens = [arm.experiment.budget.tokens for arm in study.arms]
    assert len(set(tokens)) > 1
    study.save()
    slow = replace(HARDWARE["h200"], name="slow", call_seconds=1e-4)
    again = sw.Study(big, hardware=slow, **given)
    assert [arm.experiment.budget.tokens for arm in again.arms] == tokens
    loaded = sw.Study.load(study.folder, hardware=slow)
    assert [arm.experiment for arm in loaded.arms] == [arm.experiment for arm in study.arms]


def test_equal_seconds_need_a_machine_that_was_measured(two, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path))
    with pytest.raises(ExperimentError, match=r"needs the speed of this machine.*calibrate"):
        sw.Study(two, equal="seconds")


def test_both_readings_come_from_runs_that_decayed(tiny, place) -> None:
    short = tiny.replace(rack={"stacks": 2})
    given = {"vary": {"curriculum": ["end_to_end", "left_to_right"]}, "placement": place}
    result = sw.Study(short, both=True, **given, **PLAIN).run()
    other = {arm.name: run for arm, _, run in result.others["tokens"]}
    assert {run.result()["trained_tokens"] for run in other.values()} == {1024}
    main = {arm.name: run for arm, _, run in result.runs}
    assert other["end_to_end"].id == main["end_to_end"].id, "the same stages are one run"
    rows = result.summary().set_index("arm")
    for name, run in other.items():
        assert rows["at_equal_tokens"][name] == run.result()["bits_per_byte"]
    assert rows["tokens_decayed"].all() and rows["flops_decayed"].all()

    read = sw.StudyResult(result.equal, result.runs, result.control).summary().set_index("arm")
    assert read["tokens_decayed"].tolist() == [True, False], "half-way its rate is still high"
    assert math.isfinite(read["at_equal_tokens"]["left_to_right"])


def test_runs_that_saw_other_data_are_not_compared(two, place) -> None:
    one = sw.train(two, place)
    other = sw.train(two.replace(data={"heldout_frac": 0.1}), place)
    with pytest.raises(ExperimentError) as error:
        sw.StudyResult.from_runs({"a": [one], "b": [other]})
    assert str(error.value).startswith(
        f"run {other.id}: saw other data than run {one.id}: the split (train_bytes) is 36"
    )
    arms = [(sw.study.Arm("a", one.experiment), 3, one)]
    with pytest.raises(ExperimentError, match="is paired by seed 3, and its samples come in the"):
        sw.StudyResult("flops", tuple(arms)).verdict()
    with pytest.raises(ExperimentError, match="is the second one of seed 0"):
        sw.StudyResult.from_runs({"a": [one, one]})
    found = sw.StudyResult.from_runs({"a": [one]})
    assert found.control == "a" and len(found.summary()) == 1


def test_a_plan_adds_up_before_anything_is_trained(two, place) -> None:
    curricula = ["end_to_end", "left_to_right"]
    study = sw.Study(two, vary={"curriculum": curricula}, seeds=(0, 1, 2), placement=place)
    plan = study.plan(hardware=HARDWARE["h200"])
    frame = plan.to_frame().set_index("arm")
    assert list(frame.index) == [*curricula, "same bytes"]
    for arm in study.arms:
        row = frame.loc[arm.name]
        assert (row["runs"], row["tuning_runs"]) == (3, 3)
        assert row["flops_total"] == 3 * spent(arm.experiment)["flops"] == row["tuning_flops"]
    assert plan.runs == 18 and 0 < plan.hours < 1
    assert plan.flops == pytest.approx(frame["flops_total"].sum() * 2)
    json.dumps(plan.to_json())
    long = sw.Study(two.replace(budget={"tokens": 200_000}), placement=place, **PLAIN).plan()
    assert any("epochs over the text, more than 4" in note for note in long.notes)
