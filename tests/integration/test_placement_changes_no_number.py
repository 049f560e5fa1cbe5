"""Micro-batch, checkpointing and compilation change bytes and seconds, not the losses."""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.model.block import Block
from stackwise.training import layers


@pytest.mark.parametrize(
    "change",
    [{"micro_batch": 1}, {"micro_batch": 3}, {"checkpointing": True}],
    ids=["one by one", "uneven", "checkpointing"],
)
def test_losses_are_the_same_however_it_is_carried_out(arm, place, change) -> None:
    plain = sw.train(arm, place).metrics()
    other = sw.train(arm, place.replace(**change), rerun=True).metrics()
    # Sums over a batch are added in another order: float32 rounding, 2^-24 per step, which the
    # optimizer amplifies over 16 steps at a learning rate of 0.01.
    np.testing.assert_allclose(plain["loss"], other["loss"], rtol=1e-4)
    assert (plain["flops"] == other["flops"]).all()


def test_a_large_micro_batch_is_the_batch(tiny, place) -> None:
    plain = sw.train(tiny, place)
    other = sw.train(tiny, place.replace(micro_batch=4), rerun=True)
    assert plain.weights_hash() == other.weights_hash()


def test_micro_batches_keep_less_for_backward(tiny, place) -> None:
    def kept(run: sw.Run) -> float:
        memory = run.memory()
        return float(memory[memory["category"] == "activations"]["measured"].iloc[0])

    whole = kept(sw.train(tiny, place))
    single = kept(sw.train(tiny, place.replace(micro_batch=1), rerun=True))
    assert single < whole / 2


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny, place) -> None:
    first = sw.train(tiny, place).weights_hash()
    assert sw.train(tiny, place, rerun=True).weights_hash() == first
    assert sw.train(tiny.replace(seed=1), place).weights_hash() != first


def test_compiled_blocks_give_the_same_losses(tiny, place) -> None:
    exp = tiny.replace(
        rack={"stacks": 2},
        curriculum="left_to_right",
        eval={"points": 1, "windows": 4, "final": 4},  # as many as in a batch: one shape
    )
    plain = sw.train(exp, place).metrics()
    compiled = sw.train(exp, place.replace(compile=True), rerun=True).metrics()
    np.testing.assert_allclose(plain["loss"], compiled["loss"], rtol=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_runs_what_gradient_crosses_once_more(
    tiny, place, monkeypatch, checkpointing
) -> None:
    """Active blocks and those after them, but not the trunk, of which backward needs nothing."""
    forward, ran, steps = Block.forward, [0], []

    def counted(block, *given, **how):
        ran[0] += 1
        return forward(block, *given, **how)

    def noted(work, numbers):
        steps.append(ran[0])
        ran[0] = 0

    monkeypatch.setattr(Block, "forward", counted)
    exp = tiny.replace(curriculum={"name": "block_coordinate", "cycles": 1, "embedding": "never"})
    run = sw.train(exp, place.replace(checkpointing=checkpointing), on_step=noted)
    stage_steps = run.metrics()["stage_step"]
    inside = [n for n, step in zip(steps, stage_steps, strict=True) if step == 2]  # no look before
    assert inside == ([8, 7, 6, 5] if checkpointing else [4, 4, 4, 4])


@pytest.mark.parametrize("grads", ["whole", "in_backward"])
@pytest.mark.parametrize("compile", [False, True])
def test_blocks_and_head_are_compiled_where_it_is_asked(
    tiny, place, monkeypatch, compile, grads
) -> None:
    given = []

    def noted(function, dynamic=None):
        given.append(function.__qualname__.partition(".")[0])
        return function

    monkeypatch.setattr(layers, "compiled_alone", noted)
    exp = tiny.replace(curriculum="left_to_right", optim={"grads": grads, "clip": None})
    sw.train(exp, place.replace(compile=compile))
    # Four stages: the stack that trains, and before it a stretch for each stack of the trunk.
    assert given.count("stretch") == compile * (1 + 2 + 3 + 4)
    assert given.count("head_of") == compile * 4
