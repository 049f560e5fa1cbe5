"""A step that is taken phase by phase gives the weights and losses of training, to the last bit."""

from __future__ import annotations

import math

import pytest
import torch

import stackwise as sw
from stackwise.memory.meter import Kept
from stackwise.stage import parts_trained, roles, trunk_of
from stackwise.stepping import Stepper, steps_of
from stackwise.training.kept_stages import folder_of
from stackwise.training.restoring import read_rack
from stackwise.training.step import training_step

BY_BLOCKS = {
    "objective": {"kind": "block_diffusion", "block": 3},
    "curriculum": "right_to_left",
    "preserve": {"consistency": 1.0, "distill": 2.0},
}


@pytest.fixture(autouse=True, scope="module")
def cold():
    """Nothing of memory's peak is measured here, so that warming up for it would be for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        yield


@pytest.fixture
def alone(place) -> sw.Placement:
    return place.replace(threads=1)


def weights(rack: sw.Rack) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in rack.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def trained(exp: sw.Experiment, place: sw.Placement) -> tuple[sw.Run, list[dict]]:
    """A run, and its weights after every step."""
    found = []
    run = sw.train(exp, place, on_step=lambda work, numbers: found.append(weights(work.rack)))
    return run, found


@pytest.mark.parametrize("stage", [0, 1])
def test_steps_of_each_curriculum_are_those_of_training(arm, alone, stage) -> None:
    """left_to_right's second stage has a trunk, right_to_left's a suffix that gradient crosses."""
    run, after = trained(arm, alone)
    stage = min(stage, len(run.stages()) - 1)
    recorded = run.metrics()
    recorded = recorded[recorded["stage"] == stage].reset_index(drop=True)
    with Stepper(arm, stage, alone) as stepper:
        for step in range(2):
            last = stepper.next_step()[-1]
            assert last.loss == recorded["loss"][step]
            assert last.grad_norm == recorded["grad_norm"][step]
            assert last.rate == recorded["lr"][step]
            assert last.counted == round(recorded["masked_frac"][step] * 64)
            assert same(weights(stepper.rack), after[recorded["step"][step] - 1])


def test_a_curriculum_stepped_through_to_its_end_is_the_trained_run(arm, alone) -> None:
    run = sw.train(arm, alone)
    losses = []
    with Stepper(arm, 0, alone) as stepper:
        for stage in range(len(stepper.stages)):
            if stage:
                stepper.begin(stage)
            losses += [phase.loss for phase in stepper if phase.is_last]
            assert stepper.finished and not stepper.next_step()
        average = stepper._trainee.average
        with average.applied():  # as a finished run is read
            assert same(weights(stepper.rack), weights(read_rack(run)))
    assert losses == run.metrics()["loss"].tolist()


@pytest.mark.parametrize(
    ("science", "placement"),
    [
        ({"objective": "clm"}, {}),
        ({"objective": "mlm"}, {}),
        ({"masking": {"bands": "linear"}}, {}),
        ({"optim": {"grads": "in_backward", "clip": None}}, {}),
        ({"optim": {"ema": None}}, {}),
        ({"precision": {"compute": "bfloat16"}}, {}),
        ({"precision": {"compute": "bfloat16", "weights": "bfloat16"}}, {}),
        ({"precision": {"frozen": "fp8", "border": "bfloat16"}}, {}),
        ({"rack": {"tied": True}}, {}),
        (
            {"rack": {"time": "learned", "frozen_up": True, "spectral_norm": True}},
            {"micro_batch": 3},
        ),
        ({"preserve": {"distill": 1.0}}, {}),
        ({**BY_BLOCKS, "adapters": "suffix"}, {"micro_batch": 3}),
        ({**BY_BLOCKS, "optim": {"grads": "in_backward", "clip": None}}, {"checkpointing": True}),
        ({}, {"micro_batch": 3}),
        ({}, {"checkpointing": True}),
    ],
)
def test_so_they_are_whatever_is_asked(tiny, alone, science, placement) -> None:
    exp = tiny.replace(**{"curriculum": "left_to_right", **science})
    place = alone.replace(**placement)
    run = sw.train(exp, place)
    recorded = run.metrics()
    recorded = recorded[recorded["stage"] == 1]
    with Stepper(exp, 1, place) as stepper:
        losses = [phase.loss for phase in stepper if phase.is_last]
    assert losses == recorded["loss"].tolist()


@pytest.mark.parametrize("trunk", ["streamed", "cached"])
def test_of_a_run_that_reads_its_trunk_it_computes_it_and_says_so(tiny, alone, trunk) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    run = sw.train(exp, alone.replace(trunk=trunk))
    recorded = run.metrics()
    with Stepper(run, 1) as stepper:
        assert any("trunk is computed here" in note for note in stepper.notes)
        losses = [phase.loss for phase in stepper if phase.is_last]
    assert losses == recorded[recorded["stage"] == 1]["loss"].tolist()


def test_a_stage_begins_at_the_end_that_a_run_has_kept_and_leaves_the_run_alone(
    tiny, alone
) -> None:
    run = sw.train(tiny.replace(curriculum="left_to_right"), alone)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}
    recorded = run.metrics()
    led = []
    with Stepper(run, 2, on_lead=lambda done, of: led.append(done)) as stepper:
        assert stepper.beginning(2).kept_by is not None
        assert stepper.notes == (
            "The stage begins with the weights that the one before it ended with.",
        )
        losses = [phase.loss for phase in stepper if phase.is_last]
    assert not led
    assert losses == recorded[recorded["stage"] == 2]["loss"].tolist()
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file()}


def test_without_kept_ends_the_stages_before_are_trained_first(tiny, alone) -> None:
    run = sw.train(tiny.replace(curriculum="left_to_right"), alone.replace(keep_stages=False))
    assert not folder_of(run.path, 0).exists()
    recorded = run.metrics()
    led = []
    with Stepper(run, 2, on_lead=lambda done, of: led.append((done, of))) as stepper:
        assert "stages 0 to 1 were trained first" in stepper.notes[0]
        loss = stepper.next_step()[-1].loss
        taken = sum(recorded["stage"] < 2)
        assert led == [(n + 1, taken) for n in range(taken)]
        led.clear()
        stepper.begin(1)  # which it has kept meanwhile
        assert not led
        assert stepper.next_step()[-1].loss == recorded[recorded["stage"] == 1]["loss"].iloc[0]
    assert loss == recorded[recorded["stage"] == 2]["loss"].iloc[0]


def test_a_shorter_way_to_a_stage_is_said(tiny, alone) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    with Stepper(exp, 1, alone, lead_steps=2) as stepper:
        whole = stepper._work.steps_of(0)
        assert f"stage 0 was trained for 2 steps, not {whole}" in stepper.notes[0]
        assert stepper.next_step()[-1].loss > 0


def test_reset_begins_again_with_the_same_numbers(arm, alone) -> None:
    with Stepper(arm, len(sw.stages(arm)) - 1, alone) as stepper:
        first = [phase.loss for phase in stepper.next_step()]
        second = [phase.loss for phase in stepper.next_step()]
        next(stepper, None)  # a step in hand is dropped
        stepper.reset()
        assert stepper.step == 0
        assert [phase.loss for phase in stepper.next_step()] == first
        assert [phase.loss for phase in stepper.next_step()] == second


def test_another_seed_is_another_training(tiny, alone) -> None:
    run = sw.train(tiny.replace(curriculum="left_to_right"), alone)
    with Stepper(run, 1, seed=5) as stepper:
        assert stepper.exp.seed == 5 and stepper.beginning(0).kept_by is None
        loss = stepper.next_step()[-1].loss
    with Stepper(tiny.replace(curriculum="left_to_right", seed=5), 1, alone) as stepper:
        assert loss == stepper.next_step()[-1].loss
    recorded = run.metrics()
    assert loss != recorded[recorded["stage"] == 1]["loss"].iloc[0]


def test_gradient_goes_where_the_roles_say_and_nowhere_else(arm, alone) -> None:
    """Frozen parts get none and do not move; those after what trains are crossed by it."""
    with Stepper(arm, len(sw.stages(arm)) - 1, alone) as stepper:
        stage, role = stepper.stage, roles(stepper.stage)
        last = stepper.next_step()[-1]
    trains = parts_trained(stage)
    for name, norm in last.grad_norms.items():
        part = name.partition(".")[0]
        assert (norm is not None and norm > 0) == (part in trains)
        assert (last.changes[name] > 0) == (part in trains)
        if part in role:
            assert (last.flow[name] is not None) == (role[part] != "trunk")
    assert (last.flow["embedding"] is not None) == stage.embedding


def test_what_a_trunk_keeps_is_nothing_and_the_rest_is_what_autograd_keeps(arm, alone) -> None:
    last = len(sw.stages(arm)) - 1
    with Stepper(arm, last, alone) as stepper:
        phases = stepper.next_step()
        has_trunk = bool(trunk_of(stepper.stage))
    with Stepper(arm, last, alone) as stepper:
        work, setting = stepper._work, stepper._setting
        noisy = work.noisy_batch(last, 0)
        with Kept(work.rack) as kept:
            training_step(work.rack, noisy, setting, stepper._trainee, phases[-1].rate)
    told = {phase.name: phase for phase in phases}
    assert not has_trunk or told["trunk"].kept == ()
    assert told["active"].kept_bytes > 0
    assert told["loss"].memory["activations"] == kept.peak_bytes
    assert sum(phase.kept_bytes for phase in phases) == kept.peak_bytes
    assert phases[-1].memory["activations"] == 0


def test_losses_of_positions_add_up_to_the_loss(tiny, alone) -> None:
    with Stepper(tiny, 0, alone) as stepper:
        phase = stepper.next_step()[-1]
    tokens = phase.tokens
    assert (~tokens.counted_BT == [[math.isnan(x) for x in row] for row in tokens.nats_BT]).all()
    nats = (tokens.nats_BT * tokens.weight_B[:, None])[tokens.counted_BT].sum()
    # One sum in float32, one in float64, of some tens of terms.
    assert nats / tokens.ids_BT.size == pytest.approx(phase.loss, rel=1e-5)
    assert ((tokens.guess_BT >= 0) == tokens.counted_BT).all()


def test_phases_are_frozen_and_say_which_they_are(tiny, alone) -> None:
    exp = tiny.replace(curriculum="block_coordinate")
    with Stepper(exp, 1, alone) as stepper:
        phases = stepper.next_step()
    names = ("batch", "mask", "trunk", "active", "suffix", "loss", "gradients", "update")
    assert tuple(phase.name for phase in phases) == names == phases[0].names
    assert [phase.number for phase in phases] == list(range(8)) and phases[-1].is_last
    with pytest.raises(AttributeError):
        phases[0].loss = 1.0
    with pytest.raises(ValueError, match="read-only"):
        phases[0].tokens.ids_BT[0, 0] = 1
    with pytest.raises(TypeError):
        phases[-1].changes["s0.0"] = 1.0
    assert phases[0].loss is None and not phases[0].grad_norms  # told before it is known


def test_steps_can_be_had_from_some_step_on(tiny, alone) -> None:
    whole = [(phase.step, phase.name, phase.loss) for phase in steps_of(tiny, 0, 0, alone)]
    some = [(phase.step, phase.name, phase.loss) for phase in steps_of(tiny, 0, 14, alone)]
    assert some == [row for row in whole if row[0] >= 14] and {row[0] for row in some} == {14, 15}


def test_the_kernel_computes_with_as_many_threads_as_before(tiny, alone) -> None:
    torch.set_num_threads(2)
    try:
        stepper = Stepper(tiny, 0, alone)
        assert torch.get_num_threads() == 2
        stepper.next_step()
        assert torch.get_num_threads() == 2
        folder = stepper._run.path
        stepper.close()
        assert torch.get_num_threads() == 2 and not folder.exists()
    finally:
        torch.set_num_threads(1)
