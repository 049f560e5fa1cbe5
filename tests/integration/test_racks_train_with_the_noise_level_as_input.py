"""Time-as-input goes with every curriculum, and a rack that has it learns to use it."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.corruption import Corruption
from stackwise.data.batches import Batch
from stackwise.model.conditioning import TimeInput
from stackwise.objective import corrupt
from stackwise.probe import path_loss
from stackwise.training.run import resume

TIMED = {"time": "sinusoidal", "time_width": 8}


def test_under_every_curriculum(arm: sw.Experiment, place: sw.Placement) -> None:
    """Every stack's readouts have moved where the stack has trained."""
    run = sw.train(arm.replace(rack=TIMED), place)
    rack = run.rack()
    trained = {stack for stage in run.stages() for stack in stage["active"]}
    for stack in trained:
        found = [m for m in rack.stacks[stack].modules() if isinstance(m, TimeInput)]
        assert all(bool(module.readout.weight.any()) for module in found), stack
    assert run.result()["bits_per_byte"] < 9


@pytest.mark.parametrize(
    "options",
    [
        {"precision": {"compute": "bfloat16", "weights": "bfloat16"}},
        {"objective": "mlm"},
        {"optim": {"grads": "in_backward", "clip": None}, "masking": {"sampling": "stratified_k"}},
    ],
    ids=str,
)
def test_checkpointing_changes_no_number(tiny, place, options) -> None:
    exp = tiny.replace(**{"curriculum": "left_to_right", **options, "rack": TIMED})
    runs = [sw.train(exp, place.replace(checkpointing=flag), rerun=True) for flag in (False, True)]
    assert runs[0].metrics()["loss"].equals(runs[1].metrics()["loss"])
    assert runs[0].weights_hash() == runs[1].weights_hash()


def test_a_run_goes_on_to_the_same_bits(tiny, place) -> None:
    """With the power iteration's vector, and epsilon by depth, in the checkpoint as well."""
    options = {**TIMED, "spectral_norm": True, "depth_base": 2, "frozen_up": True}
    exp = tiny.replace(curriculum="left_to_right", rack=options)
    whole = sw.train(exp, place)

    def stop(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 6

    stopped = sw.train(exp, place, rerun=True, on_step=stop)
    assert stopped.state == "stopped"
    again = resume(stopped)
    assert again.weights_hash() == whole.weights_hash()


def test_the_right_level_predicts_better_than_another() -> None:
    """Trained on pairs of equal letters, then told 1 - level: that costs it over a hundredth."""
    shape = sw.RackShape(
        stacks=1, blocks_per_stack=2, d_model=32, heads=2, vocab=4, time="learned", time_width=8
    )
    rack = sw.Rack(shape, "mha", 4, seed=0)
    ids_NT = torch.randint(4, (64, 16), generator=torch.Generator().manual_seed(0))
    ids_NT[:, 1::2] = ids_NT[:, ::2]
    place_N = torch.arange(64).numpy()
    rule = Corruption(sw.Experiment().objective, 4, 64, 0)
    optimizer = torch.optim.Adam(rack.parameters(), lr=3e-3)
    for draw in range(100):
        noisy = corrupt(rule, Batch(ids_NT.numpy(), place_N, 0 * place_N + draw, place_N))
        x_BTD = rack.hidden(noisy.input_BT, time_B=noisy.level_B)
        nats_N = torch.nn.functional.cross_entropy(
            rack.logits(x_BTD[noisy.counted_BT]), noisy.target_N, reduction="none"
        )
        loss = (nats_N * noisy.weight_N).sum() / ids_NT.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    noisy = corrupt(rule, Batch(ids_NT.numpy(), place_N, 0 * place_N + 999, place_N))
    right = path_loss(rack, noisy, causal=False, path=("s0",))
    object.__setattr__(noisy, "time_B", 1 - noisy.level_B)
    wrong = path_loss(rack, noisy, causal=False, path=("s0",))
    assert right < wrong - 0.005
