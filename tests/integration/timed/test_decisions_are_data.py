"""What the clock decided is written down before it has an effect, and from then on it is data."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.atomic import write_text
from stackwise.runs import RunError
from stackwise.runs.pace import read_pace
from stackwise.training import pacer
from stackwise.training.ownership import RACK
from stackwise.training.run import execute
from stackwise.training.start import create_run

from ...warm import Child
from .conftest import BEGAN, World, for_steps, repeat

DETERMINISTIC = ["step", "stage", "stage_step", "tokens", "flops", "loss", "lr", "grad_norm"]
ARMS = {
    "grow": {"curriculum": {"name": "grow", "optimizer_state": "keep", "lr": "rewarm"}},
    "shorter samples": {
        "curriculum": "left_to_right",
        "data": {"seq_len_by_stage": (8, 8, 16, 16), "restart": True},
    },
    "moving masks": {"masking": {"schedule": "ramp"}, "objective": "mlm"},
}


class Killed(BaseException):
    """As if the process had gone: nothing after it runs."""


def same(one: sw.Run, other: sw.Run) -> None:
    assert one.weights_hash() == other.weights_hash()
    assert one.metrics()[DETERMINISTIC].equals(other.metrics()[DETERMINISTIC])
    assert one.stages() == other.stages()
    assert one.result()["bits_per_byte"] == other.result()["bits_per_byte"]


@pytest.mark.parametrize("arm", ARMS)
def test_a_killed_run_comes_to_what_its_decisions_say(tiny, machine, place, world, arm) -> None:
    place = place.replace(checkpoint_seconds=0.01)
    exp = for_steps(tiny.replace(**ARMS[arm]), machine, 24, place)
    run, chance = create_run(exp, place), random.Random(arm)
    world.slow = lambda at: 1.0 if at - BEGAN < exp.budget.seconds / 3 else 1.7
    kept, kills = [], 0

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        if kills < 4 and chance.random() < 0.25:
            raise Killed

    while run.state != "finished":
        try:
            execute(run, on_step=on_step)
        except Killed:
            kills += 1
        known = read_pace(run).decisions
        assert list(known[: len(kept)]) == kept  # none is ever changed
        kept = list(known)
    assert kills and any(each.factor != 1.0 or each.step for each in kept)
    world.slow = lambda at: 0.1  # however fast the machine is that repeats it
    same(repeat(run, place), run)


def test_a_kill_between_decision_and_effect_loses_neither(
    tiny, machine, place, world: World, monkeypatch
) -> None:
    place = place.replace(checkpoint_seconds=0.01)
    exp = tiny.replace(curriculum="left_to_right", eval={"points": 1, "windows": 2, "final": 2})
    exp = for_steps(exp, machine, 40, place)
    run, real, at = create_run(exp, place), pacer.tell, []
    world.slow = lambda at: 2.0

    def killed(work, decision) -> None:
        if len(at) < 5 and (not at or at[-1] != decision):
            at.append(decision)
            raise Killed
        real(work, decision)

    monkeypatch.setattr(pacer, "tell", killed)
    while run.state != "finished":
        try:
            execute(run, on_step=world.on_step)
        except Killed:
            assert read_pace(run).decisions[-1] == at[-1]
            decided = run.stages()[at[-1].stage]
            assert decided["tokens"] == at[-1].steps * 64  # whoever reads it knows
    assert len(at) == 5
    assert set(at) <= set(read_pace(run).decisions)
    same(repeat(run, place), run)


CHILD = """
import sys, torch, stackwise as sw
torch.set_num_threads(1)
from stackwise.training import clock
from stackwise.training.run import execute
at = [0.0]
clock.now = lambda: at[0]
def on_step(work, numbers):
    at[0] += 1.5 * work.pacer.pace.forecasts[work.at.stage].step
    print(work.at.total_steps, flush=True)
execute(sw.attach(sys.argv[1]), on_step=on_step)
"""


def test_a_run_that_is_killed_outright_goes_on(tiny, machine, place, world: World) -> None:
    place = place.replace(checkpoint_seconds=0.01)
    exp = tiny.replace(curriculum={"name": "left_to_right", "fuse": 0.3})
    exp = for_steps(exp, machine, 30, place)
    run, chance = create_run(exp, place), random.Random(7)
    for _ in range(4):
        with Child(CHILD, str(run.path)) as child:
            for _ in range(chance.randint(1, 6)):
                child.stdout.readline()
            time.sleep(chance.random() * 0.02)
            child.kill()
            child.wait()
    execute(run, on_step=world.on_step)
    same(repeat(run, place), run)


def test_what_a_kill_loses_is_counted_all_the_same(tiny, machine, place, world: World) -> None:
    exp = for_steps(tiny, machine, 30)
    run = create_run(exp, place)  # no checkpoint within the stage

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        if work.at.total_steps == 12 and run.status()["attempt"] == 1:
            work.writer.tell()  # a heartbeat
            raise Killed

    with pytest.raises(Killed):
        execute(run, on_step=on_step)
    lost = world.seconds - BEGAN
    assert run.status()["worked_seconds"] == pytest.approx(lost)
    assert not run.has_weights() or run.stages_done() == 0
    execute(run, on_step=on_step)
    result = run.result()
    assert result["worked_seconds"] == pytest.approx(world.seconds - BEGAN)
    assert result["worked_seconds"] <= exp.budget.seconds + max(world.steps)
    assert len(run.metrics()) < 22


def test_time_that_is_over_ends_in_a_step_of_each_stage(tiny, machine, place, world) -> None:
    exp = for_steps(tiny.replace(curriculum={"name": "left_to_right", "fuse": 0.3}), machine, 30)
    run = create_run(exp, place)

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        if work.at.total_steps == 2:
            world.seconds += 2 * exp.budget.seconds

    execute(run, on_step=on_step)
    assert run.metrics().groupby("stage").size().tolist() == [3, 1, 1, 1, 1]
    assert run.metrics().lr.tolist()[-1] <= exp.optim.lr
    assert run.state == "finished"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.unlink(), "pace.json is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "pace.json is damaged"),
        (lambda path: edited(path), "pace.json is damaged"),
        (lambda path: path.write_text("[1, 2]"), "pace.json is damaged"),
        (lambda path: path.write_text("{"), "pace.json is damaged"),
        (lambda path: without_decisions(path), "decisions, and its checkpoint was written after"),
    ],
)
def test_damage_is_found_before_a_step(stopped: sw.Run, harm, said: str) -> None:
    path, before = stopped.path / "pace.json", (stopped.path / "pace.json").read_bytes()
    harm(path)
    try:
        with pytest.raises(RunError, match=said):
            execute(stopped)
        if "damaged" in said:
            with pytest.raises(RunError, match=said):
                stopped.stages()
            assert said in stopped.summary()["problem"]
    finally:
        path.write_bytes(before)


@pytest.fixture
def stopped(tiny, machine, place, world: World) -> sw.Run:
    """A run that stopped after the clock had decided something."""
    run = create_run(for_steps(tiny, machine, 20), place)
    world.slow = lambda at: 2.0

    def on_step(work, numbers) -> None:
        world.on_step(work, numbers)
        work.stop_requested = work.pacer.taken >= 2

    execute(run, on_step=on_step)
    assert run.state == "stopped"
    assert json.loads((run.path / RACK / "manifest.json").read_text())["counters"]["decisions"]
    return run


def edited(path: Path) -> None:
    found = json.loads(path.read_text())
    found["decisions"][0]["steps"] += 1
    path.write_text(json.dumps(found))


def without_decisions(path: Path) -> None:
    from stackwise.pacing import Pace
    from stackwise.runs.pace import pace_text

    found = json.loads(path.read_text())
    found.pop("sha256")
    found["decisions"] = []
    write_text(path, pace_text(Pace.model_validate(found)))
