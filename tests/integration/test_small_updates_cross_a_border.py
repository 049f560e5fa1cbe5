"""What bfloat16 weights have learned beyond their own digits is there in the next stage, too."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training import optim, run

LOW = {"compute": "bfloat16", "weights": "bfloat16"}
CYCLES = {"name": "block_coordinate", "cycles": 2}
CURRICULA = {
    "block_coordinate": CYCLES,
    "block_coordinate, moments kept": {**CYCLES, "optimizer_state": "keep"},
    "grow": {"name": "grow"},
    "left_to_right": {"name": "left_to_right"},
}
CASES = [
    ("block_coordinate", None, "recompute"),
    ("block_coordinate", 0.9, "streamed"),
    ("block_coordinate, moments kept", 0.9, "recompute"),
    ("grow", 0.9, "recompute"),
    ("left_to_right", None, "streamed"),
]


def experiment(tiny: sw.Experiment, name: str) -> sw.Experiment:
    budget = {"tokens": 16 * 4 * 16}
    return tiny.replace(curriculum=CURRICULA[name], precision=LOW, budget=budget)


@pytest.mark.parametrize(("name", "ema", "trunk"), CASES)
def test_a_stage_begins_where_the_last_one_left(tiny, place, monkeypatch, name, ema, trunk) -> None:
    enter, leave, left, compared = run.enter_stage, run.leave_stage, {}, set()

    def exact(trainee):
        pairs = trainee.named.items()
        return {key: trainee.optimizer.exact_n(p).clone() for key, p in pairs if p.ndim == 2}

    def entered(work, number):
        trainee = enter(work, number)
        fresh = {entry.stack for entry in trainee.stage.new or ()} if work.at.step == 0 else set()
        for key, value in exact(trainee).items():
            if key in left and key[0] not in fresh and work.at.step == 0:
                assert torch.equal(value, left[key]), (number, key)
                compared.add(key[0])
                if trainee.average is not None:
                    assert torch.equal(trainee.average.values[key].view(-1), value), key
        return trainee

    def gone(work, trainee):
        leave(work, trainee)
        left.update(exact(trainee))

    monkeypatch.setattr(run, "enter_stage", entered)
    monkeypatch.setattr(run, "leave_stage", gone)
    exp = experiment(tiny, name).replace(optim={"ema": ema})
    whole = sw.train(exp, place.replace(trunk=trunk))
    assert compared >= ({"head"} if name == "left_to_right" else {"s0", "s1", "head"})
    assert any(not torch.equal(value, value.bfloat16().float()) for value in left.values())
    left.clear()
    stopped = sw.train(
        exp,
        place.replace(trunk=trunk),
        rerun=True,
        on_step=lambda work, numbers: setattr(work, "stop_requested", work.at.step == 1),
    )
    while stopped.state == "stopped":
        sw.resume(stopped)
    assert stopped.weights_hash() == whole.weights_hash()


@pytest.mark.parametrize("name", CURRICULA)
def test_no_chance_is_drawn_twice(tiny, place, monkeypatch, name) -> None:
    drawn, draws_for = [], optim.draws_for

    def noted(*key):
        drawn.append(key)
        return draws_for(*key)

    monkeypatch.setattr(optim, "draws_for", noted)
    exp = experiment(tiny, name).replace(precision={"rounding": "stochastic"})
    sw.train(exp, place)
    states = {draws_for(*key).initial_seed() for key in drawn}
    assert len(states) == len(drawn) > 24
