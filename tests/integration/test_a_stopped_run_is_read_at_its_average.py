"""The model of a run that is not finished is its moving average, where it has one."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw

STEPS = 6


@pytest.fixture
def seen() -> dict[str, dict[str, torch.Tensor]]:
    return {}


@pytest.fixture
def stopped(tiny, place, seen) -> sw.Run:
    """A left-to-right run, stopped in its second stage."""

    def on_step(work, numbers):
        if work.at.total_steps == STEPS:
            work.stop_requested = True
            state = work.rack.state_dict()
            seen["raw"] = {name: value.clone() for name, value in state.items()}

    exp = tiny.replace(curriculum={"name": "left_to_right", "split": "tokens"})
    run = sw.train(exp, place, on_step=on_step)
    assert run.state == "stopped" and run.status()["stage"] == 1
    return run


def test_the_average_is_read_unless_raw_weights_are_asked_for(stopped, seen) -> None:
    raw, average = stopped.rack(raw=True).state_dict(), stopped.rack().state_dict()
    assert all(torch.equal(value, seen["raw"][name]) for name, value in raw.items())
    moving = {name for name, value in average.items() if not torch.equal(value, raw[name])}
    assert {name.split(".")[1] for name in moving if name.startswith("stacks.")} == {"s1"}
    assert any(name.startswith("head.") for name in moving)
    frozen = [name for name in raw if name.startswith(("stacks.s0.", "embedding."))]
    assert frozen and all(torch.equal(average[name], raw[name]) for name in frozen)


def test_it_is_the_average_by_its_definition(tiny, place) -> None:
    def weight(rack: sw.Rack) -> torch.Tensor:
        return rack.stacks["s0"].blocks[0].ffn.down.weight.detach().clone()

    # It starts at the weights before the first step.
    average = weight(sw.Rack(tiny.rack, tiny.attention, 256, seed=tiny.seed))

    def on_step(work, numbers):
        nonlocal average
        n = work.at.total_steps - 1
        average = average.lerp(weight(work.rack), 1 - min(0.9, (1 + n) / (10 + n)))
        work.stop_requested = work.at.total_steps == STEPS

    run = sw.train(tiny, place, on_step=on_step)
    # The same operations in the same order, fused or not: one rounding of 2^-24 each.
    torch.testing.assert_close(weight(run.rack()), average, rtol=STEPS * 2**-23, atol=1e-9)


def test_without_an_average_there_are_only_raw_weights(tiny, place) -> None:
    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == STEPS

    run = sw.train(tiny.replace(optim={"ema": None}), place, on_step=on_step)
    raw, read = run.rack(raw=True).state_dict(), run.rack().state_dict()
    assert all(torch.equal(value, raw[name]) for name, value in read.items())


def test_a_finished_run_has_only_one(stopped) -> None:
    run = sw.resume(stopped)
    raw, read = run.rack(raw=True).state_dict(), run.rack().state_dict()
    assert all(torch.equal(value, raw[name]) for name, value in read.items())
