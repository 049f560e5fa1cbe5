"""What a time cannot be, and what it cannot go with, is said before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

import stackwise as sw
from stackwise.planner.calibration import unmeasured
from stackwise.planner.timed import forecasts, in_tokens, seconds_in_all, timed
from stackwise.study.budgets import training_seconds
from stackwise.training import timing
from stackwise.training.start import create_run

from ...unit.planner.conftest import flat
from .conftest import World, for_steps


def test_too_little_for_a_step_of_each_stage(tiny, machine, place) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "fuse": 0.3}, budget={"minutes": 0.5})
    with pytest.raises(sw.ExperimentError) as error:
        create_run(exp, place)
    said = str(error.value)
    assert said.startswith("budget.minutes: 0.5 is 30 seconds, less than one step of every stage")
    enough = float(said.partition("give at least ")[2].partition(",")[0])
    run = create_run(exp.replace(budget={"minutes": enough}), place)  # the figure is enough
    assert all(stage["tokens"] for stage in run.stages())
    with pytest.raises(sw.ExperimentError, match="less than one step"):
        create_run(exp.replace(budget={"minutes": enough / 1.15}), place)
    assert list(run.path.parent.iterdir()) == [run.path]


def test_a_machine_that_was_not_measured(tiny, place, monkeypatch) -> None:
    monkeypatch.setattr(timing, "hardware_called", lambda name: unmeasured())
    exp = tiny.replace(budget={"days": 3})
    for ask in (lambda: create_run(exp, place), lambda: sw.plan(exp), lambda: sw.timed(exp)):
        with pytest.raises(sw.ExperimentError) as error:
            ask()
        assert str(error.value).startswith(
            "budget.days: 3 is turned into tokens by the speed of this machine, which has not been "
            "measured; measure it with: "
        )
        assert "calibrate, or give tokens or flops" in str(error.value)


def test_stages_alone_do_not_say_how_long_they_are(tiny) -> None:
    with pytest.raises(sw.ExperimentError) as error:
        sw.stages(tiny.replace(budget={"hours": 2}))
    assert str(error.value) == (
        "budget.hours: 2 is a time, and how much is read in it depends on the machine: sw.plan "
        "shows its stages, sw.timed gives it in tokens"
    )


def test_a_stage_with_a_length_of_its_own(tiny, machine, place, monkeypatch) -> None:
    def mine(exp):
        ids = sw.stack_ids(exp.rack)
        yield sw.Stage(path=ids[:2])
        yield sw.Stage(path=ids, tokens=640)

    monkeypatch.setitem(sw.CURRICULA, "mine", mine)
    with pytest.raises(sw.ExperimentError) as error:
        create_run(tiny.replace(curriculum="mine", budget={"hours": 2}), place)
    assert str(error.value) == (
        "curriculum.stages[1].tokens: 640 is a length of its own, and with budget.hours the "
        "lengths of stages follow the clock; leave it out, and give the stage a share"
    )


@pytest.mark.parametrize("options", [{"equal": "flops"}, {"equal": "seconds", "both": True}])
def test_a_study_that_is_equal_in_something_else(tiny, machine, place, options) -> None:
    with pytest.raises(sw.ExperimentError) as error:
        sw.Study(tiny.replace(budget={"hours": 1}), placement=place, hardware="round", **options)
    asked = "both=True" if "both" in options else "equal='flops'"
    assert str(error.value) == (
        f"budget.hours: is a time, and {asked} counts what arms spend in it, which depends on the "
        "machine; use equal='seconds' alone, or give the base tokens or flops"
    )


def test_a_study_of_equal_seconds_gives_each_arm_the_time(tiny, machine, place) -> None:
    base = tiny.replace(budget={"minutes": 20})
    vary = {"curriculum": ["end_to_end", "grow"]}
    study = sw.Study(
        base, vary=vary, equal="seconds", placement=place, hardware="round", same_bytes=False
    )
    for arm in study.arms:
        taken = training_seconds(arm.experiment, place, machine)
        step = 2 * max(each.step for each in forecast(arm.experiment, place, machine))
        assert abs(taken - 20 * 60) <= step
        assert arm.experiment.budget.tokens  # frozen, so that no clock changes an arm


def forecast(exp: sw.Experiment, place: sw.Placement, machine):
    return forecasts(exp, place, sw.stages(exp), machine)


def test_tokens_fill_the_time(tiny, machine, place) -> None:
    for minutes in (30.0, 400.0, 50_000.0):
        asked = tiny.replace(curriculum="grow", budget={"minutes": minutes})
        exp = timed(asked, place, hardware="round")
        taken = seconds_in_all(exp, place, sw.stages(exp), forecast(exp, place, machine))
        assert taken <= minutes * 60
        dearest = max(each.step for each in forecast(exp, place, machine))
        assert taken >= 0.998 * minutes * 60 - 2 * dearest
    assert in_tokens(tiny, place, machine) is tiny


def test_the_plan_shows_time_and_tokens(tiny, machine, place) -> None:
    asked = tiny.replace(curriculum="left_to_right", budget={"hours": 3})
    plan = sw.plan(asked, place, hardware="round")
    assert plan.asked == asked and plan.experiment.budget.tokens
    assert plan.to_json()["experiment"]["budget"]["hours"] == 3
    assert 0.9 * 3 <= plan.days * 24 <= 3
    said = str(plan)
    assert said.splitlines()[0] == str(asked)
    assert "3.0 h of work, looks and saving included; as it trains, the lengths of its" in said
    assert [row["tokens"] for row in plan.rows] == [s.tokens for s in sw.stages(plan.experiment)]


def test_a_run_is_known_by_its_time(tiny, machine, place, monkeypatch) -> None:
    exp = for_steps(tiny.replace(curriculum="grow"), machine, 30)
    run = create_run(exp, place)
    slower = replace(machine, matmul={name: flat(2e5) for name in machine.matmul})
    assert timed(exp, place, hardware=slower) != timed(exp, place, hardware=machine)
    monkeypatch.setattr(timing, "hardware_called", lambda name: slower)
    assert create_run(exp, place).path == run.path  # though it is measured anew
    other = create_run(exp.replace(budget={"minutes": 2 * exp.budget.minutes}), place)
    assert other.path != run.path
    assert run.provenance()["paced"] is True
    assert any("of work" in note for note in run.provenance()["notes"])


def test_a_fork_counts_what_was_done_before_it(tiny, machine, place, world: World) -> None:
    from stackwise.training.run import execute

    exp = for_steps(tiny.replace(curriculum="left_to_right"), machine, 30)
    run = create_run(exp, place)
    execute(run, on_step=world.on_step)
    made = run.fork(after_stage=1, launch=False, optim={"lr": 0.005})
    assert made.stages()[:2] == run.stages()[:2]
    began = world.seconds
    execute(made, on_step=world.on_step)
    result = made.result()
    assert result["worked_seconds"] <= exp.budget.seconds + max(world.steps)
    assert world.seconds - began < 0.8 * exp.budget.seconds
    assert result["worked_seconds"] >= 0.85 * exp.budget.seconds
    with pytest.raises(
        sw.ExperimentError, match=r"budget.minutes: 1, and the run had been at work"
    ):
        run.fork(after_stage=1, launch=False, budget={"minutes": 1})
    by_tokens = run.fork(after_stage=1, launch=False, budget={"tokens": 64 * 40})
    assert not by_tokens.is_paced
    execute(by_tokens)
