"""Where a number that is none began is found in one more pass over the same batch."""

from __future__ import annotations

import math

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.training import diagnosis, step
from stackwise.training.run import execute
from stackwise.training.start import NotFinite, create_run


def spoils_output(stack: str):
    def spoil(work) -> None:
        block = work.rack.stacks[stack].blocks[0]
        block.register_forward_hook(lambda module, args, out: out * math.inf)

    return spoil


def spoils_gradient(stack: str):
    """Of what its feed-forward layer reads: the norm before that is the first tensor to get it."""

    def spoil(work) -> None:
        layer = work.rack.stacks[stack].blocks[0].ffn
        layer.register_full_backward_hook(lambda module, into, out: (into[0] * math.nan,))

    return spoil


def spoils_weight(work) -> None:
    work.rack.stacks["s1"].blocks[0].ffn.up.weight.data[1, 2] = math.nan


def enlarges_gradient(work) -> None:
    work.rack.head.weight.register_hook(lambda grad: grad * 1e30)


def spoils_embedding(work) -> None:
    work.rack.embedding.register_forward_hook(lambda module, args, out: out + math.nan)


BY_STAGE = {"curriculum": "left_to_right"}
IN_BACKWARD = {"optim": {"grads": "in_backward", "clip": None}}
NORM = "blocks.0.ffn_norm.weight"
CASES = {  # what is spoiled after which step, experiment, placement, and what is said
    "embedding": (spoils_embedding, 2, {}, {}, {"part": "embedding", "direction": "forward"}),
    "block": (spoils_output("s2"), 2, {}, {}, {"part": "s2", "block": 0, "direction": "forward"}),
    "trunk": (
        spoils_output("s0"),
        6,
        BY_STAGE,
        {},
        {"part": "s0", "block": 0, "stage": 1, "step": 7},
    ),
    "streamed trunk": (
        spoils_output("s0"),
        6,
        BY_STAGE,
        {"trunk": "streamed", "micro_batch": 2, "checkpointing": True},
        {"part": "s0", "block": 0, "micro_batch": 0},
    ),
    "cached trunk": (
        spoils_output("s0"),
        8,
        BY_STAGE,
        {"trunk": "cached"},
        {"where": "the cached outputs of the trunk", "stage": 2, "step": 10},
    ),
    "gradient": (
        spoils_gradient("s2"),
        2,
        {},
        {},
        {"part": "s2", "block": 0, "tensor": NORM, "direction": "backward"},
    ),
    "gradient in backward": (spoils_gradient("s1"), 2, IN_BACKWARD, {}, {"tensor": NORM}),
    "loss before backward": (spoils_output("s1"), 2, IN_BACKWARD, {}, {"part": "s1", "block": 0}),
    "squares": (enlarges_gradient, 2, {}, {}, {"part": "head", "tensor": "weight"}),
    "weight": (spoils_weight, 2, {}, {}, {"part": "s1", "tensor": "blocks.0.ffn.up.weight"}),
    "weight at a border": (spoils_weight, 8, BY_STAGE, {}, {"part": "s1", "stage": 1, "step": 8}),
}


@pytest.mark.parametrize("case", CASES)
def test_it_says_where(tiny, place, case) -> None:
    spoil, after, science, placement, said = CASES[case]
    place = place.replace(checkpoint_seconds=1e-9, **placement)

    def on_step(work, numbers) -> None:
        if work.at.total_steps == after:
            spoil(work)

    with pytest.raises(NotFinite) as caught:
        sw.train(tiny.replace(**science), place, on_step=on_step)
    (run,) = sw.runs_in(place.runs_dir)
    event = run.events("not_finite")[-1]
    assert {key: event.get(key) for key in said} == said
    assert str(event.get("where", event.get("tensor"))) in str(caught.value)
    kept = run.rack(raw=True).state_dict().values()
    assert all(torch.isfinite(value).all() for value in kept), "the last good state is intact"
    if science == BY_STAGE:
        assert f"stackwise fork {run.id} {event['stage'] - 1} optim.lr=" in str(caught.value)


def test_the_way_out_is_one_and_so_is_resuming_once_the_cause_is_gone(tiny, place) -> None:
    exp = tiny.replace(**BY_STAGE)
    straight, run = sw.train(exp, place), create_run(exp, place, rerun=True)

    def on_step(work, numbers) -> None:
        if work.at.total_steps == 6:
            spoils_output("s1")(work)

    with pytest.raises(NotFinite):
        execute(run, on_step=on_step)
    fork = run.fork(after_stage=0, optim={"lr": 1e-3, "clip": 0.5}, launch=False)
    assert execute(fork).state == "finished"
    assert execute(run).weights_hash() == straight.weights_hash()


def test_the_command_line_ends_with_code_7(tiny, place, monkeypatch, capsys) -> None:
    run = create_run(tiny, place)
    monkeypatch.setattr(
        step, "micro_loss", lambda *args: torch.tensor(math.nan, requires_grad=True)
    )
    assert main(["resume", str(run.path)]) == 7
    err = capsys.readouterr().err
    assert "step 1 (stage 0, s0-s3): the loss is nan" in err
    assert "No step was taken, and there is no checkpoint yet" in err and "Traceback" not in err
    assert run.state == "failed" and run.events("not_finite")[0]["step"] == 1


def test_a_look_that_comes_to_no_number_is_told_and_never_the_best(tiny, place) -> None:
    def on_step(work, numbers) -> None:
        if work.at.total_steps in (3, 7):  # before the looks after steps 4 and 8
            hook = work.rack.head.register_forward_hook(
                lambda module, args, out: out if torch.is_grad_enabled() else out * math.nan
            )
            hooks.append(hook)
        elif work.at.total_steps in (5, 9):
            hooks.pop().remove()
            best.append(work.at.best)

    hooks: list[object] = []
    best: list[float | None] = []
    run = sw.train(tiny, place, on_step=on_step)
    straight = sw.train(tiny, place, rerun=True)
    told = run.events("not_finite")
    assert [event["step"] for event in told] == [4, 8]
    assert told[0]["what"] == "the held-out loss is nan"
    assert run.state == "finished" and run.weights_hash() == straight.weights_hash()
    assert best == [None, None]
    weights = run.rack(best=True).state_dict().values()
    assert all(torch.isfinite(value).all() for value in weights)


def test_looking_for_it_hides_nothing(tiny, place, monkeypatch) -> None:
    def none_left(*args):
        raise MemoryError

    def on_step(work, numbers) -> None:
        spoils_output("s0")(work)

    monkeypatch.setattr(diagnosis, "micro_loss", none_left)
    with pytest.raises(
        NotFinite, match=r"the loss is nan; lower lr, or look at this batch\. No step"
    ):
        sw.train(tiny, place, on_step=on_step)
    (run,) = sw.runs_in(place.runs_dir)
    assert run.events("not_finite")[0]["unknown"] == "MemoryError: "


def test_it_costs_nothing_while_all_is_well(tiny, place, monkeypatch) -> None:
    monkeypatch.setattr(diagnosis, "found_in", None)
    monkeypatch.setattr(diagnosis, "in_forward", None)
    assert sw.train(tiny, place).state == "finished"
