"""A run that steps in backward comes to the weights of one that does not, stopped or not."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training.run import resume
from stackwise.training.start import TrainingError

IN_BACKWARD = {"grads": "in_backward", "clip": None}


def weights(run: sw.Run) -> dict[str, torch.Tensor]:
    return run.rack().state_dict()


def test_every_curriculum_ends_at_the_same_weights(arm, place) -> None:
    whole = sw.train(arm.replace(optim={"clip": None}), place)
    stepped = sw.train(arm.replace(optim=IN_BACKWARD), place)
    ours, theirs = weights(stepped), weights(whole)
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert list(stepped.metrics()["loss"]) == list(whole.metrics()["loss"])
    norms = [run.metrics()["grad_norm"].to_numpy() for run in (stepped, whole)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)  # added up in another order
    held = [[event["gradients"] for event in run.events("memory")] for run in (stepped, whole)]
    assert all(one < all_of_them for one, all_of_them in zip(*held, strict=True))


LOW = {"compute": "bfloat16", "weights": "bfloat16"}


@pytest.mark.parametrize("precision", [{}, LOW, {**LOW, "rounding": "stochastic"}], ids=str)
@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "lion8bit", "adafactor", "muon"])
def test_one_that_is_stopped_goes_on_to_the_same_weights(
    tiny, place, tmp_path, name, precision
) -> None:
    if name != "adamw":
        pytest.importorskip("bitsandbytes")
    exp = tiny.replace(
        optim={**IN_BACKWARD, "name": name}, curriculum="left_to_right", precision=precision
    )
    straight = sw.train(exp, place.replace(runs_dir=str(tmp_path / "straight")))

    def stop(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 6

    stopped = sw.train(exp, place, on_step=stop)
    assert stopped.state == "stopped"
    finished = resume(stopped)
    ours, theirs = weights(finished), weights(straight)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_gradient_that_is_no_number_says_what_happened_to_the_step(tiny, place) -> None:
    def poison(work, numbers) -> None:
        if work.at.total_steps == 3:
            work.rack.embedding.table.register_hook(lambda grad: grad * torch.inf)

    with pytest.raises(TrainingError) as caught:
        sw.train(tiny.replace(optim=IN_BACKWARD), place, on_step=poison)
    assert caught.match(
        r"^step 4 \(stage 0, s0-s3\): the gradient norm of embedding/table is (nan|inf); lower lr, "
        r"or look at this batch; it began in the gradient of the embedding \(embedding\.table\)\. "
        r"Part of the step was taken, and there is no checkpoint yet\. The same experiment comes "
        r"to the same number again; with another optim\.lr, optim\.clip or precision it is another "
        r"run$"
    )


def test_a_model_of_ones_own_may_too() -> None:
    def trained(optim) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        shape = sw.RackShape(stacks=2, blocks_per_stack=1, d_model=8, heads=2)
        rack = sw.Rack(shape, sw.Experiment().attention, 7)
        batches = [torch.randint(7, (2, 5))] * 4
        sw.train_stack_wise(rack, batches, options={"optim": optim})
        return rack.state_dict()

    whole, stepped = trained({"clip": None}), trained(IN_BACKWARD)
    assert all(torch.equal(stepped[key], whole[key]) for key in whole)
