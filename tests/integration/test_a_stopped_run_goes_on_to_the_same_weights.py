"""Resuming: to the same weights, by hash, and the same numbers as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

import stackwise as sw
from stackwise.training.run import execute
from stackwise.training.start import create_run

from ..warm import Child

DETERMINISTIC = ["step", "stage", "stage_step", "tokens", "flops", "loss", "lr", "grad_norm"]


def stop_after(steps: int):
    """A callback that asks a run to stop after `steps` steps of this attempt."""
    seen = []

    def on_step(work, numbers):
        seen.append(numbers.loss)
        work.stop_requested = len(seen) == steps

    return on_step


@pytest.mark.parametrize("steps", [1, 3])
def test_stopping_every_few_steps_changes_nothing(arm, place, steps) -> None:
    whole = sw.train(arm, place)
    pieces = create_run(arm, place, rerun=True)
    attempts = 0
    while pieces.state != "finished":
        execute(pieces, on_step=stop_after(steps))
        attempts += 1
        assert attempts <= 40
    assert attempts > 4
    assert pieces.weights_hash() == whole.weights_hash()
    assert pieces.metrics()[DETERMINISTIC].equals(whole.metrics()[DETERMINISTIC])
    assert pieces.result()["bits_per_byte"] == whole.result()["bits_per_byte"]
    kept = ["stage", "step", "loss"]
    assert pieces.evals()[kept].equals(whole.evals()[kept])


CHILD = """
import sys, torch, stackwise as sw
torch.set_num_threads(1)
from stackwise.training.run import execute
run = sw.attach(sys.argv[1])
def slow(work, numbers):
    import time; time.sleep(0.02)
    print(work.at.total_steps, flush=True)
execute(run, on_step=slow)
"""


def test_a_killed_run_goes_on_to_the_same_weights(arm, place) -> None:
    place = place.replace(checkpoint_seconds=0.01)
    whole = sw.train(arm, place)
    killed = create_run(arm, place, rerun=True)
    chance = random.Random(arm.hash)
    for _ in range(3):
        child = Child(CHILD, str(killed.path))
        for _ in range(chance.randint(1, 5)):
            child.stdout.readline()
        time.sleep(chance.random() * 0.03)
        child.kill()
        child.wait()
        assert killed.state in ("died", "finished")
    execute(killed)
    assert killed.weights_hash() == whole.weights_hash()
    assert killed.metrics()[DETERMINISTIC].equals(whole.metrics()[DETERMINISTIC])


def test_ctrl_c_saves_and_says_so(tiny, place) -> None:
    run = create_run(tiny, place)
    child = Child(CHILD, str(run.path))
    child.stdout.readline()
    os.kill(child.pid, signal.SIGINT)
    assert child.wait() == 0
    assert run.state == "stopped"
    assert 0 < len(run.metrics()) < 16
    execute(run)
    assert run.weights_hash() == sw.train(tiny, place, rerun=True).weights_hash()


def test_a_second_process_is_refused_while_one_trains(tiny, place) -> None:
    run = create_run(tiny, place)
    child = Child(CHILD, str(run.path))
    child.stdout.readline()
    assert run.state == "running"
    with pytest.raises(RuntimeError, match=f"process {child.pid} is training it"):
        execute(run)
    child.kill()
    child.wait()
    assert run.state == "died"


@pytest.mark.parametrize("stage", [0, 3])
def test_a_stop_on_a_stages_last_step_keeps_what_it_measured(tiny, place, stage) -> None:
    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    whole = sw.train(exp, place)

    def on_step(work, numbers):
        last = work.at.step == work.steps_of(work.at.stage)
        work.stop_requested = last and work.at.stage == stage

    run = sw.train(exp, place, rerun=True, on_step=on_step)
    assert run.state == "stopped"
    sw.resume(run)
    assert run.state == "finished"
    found, expected = run.memory(), whole.memory()
    assert found["measured"].isna().equals(expected["measured"].isna()), "as much is known of it"
    exact = found["category"].isin(["weights", "gradients", "optimizer", "average"])
    assert found[exact].equals(expected[exact])
    assert run.weights_hash() == whole.weights_hash()
