"""A stack that is frozen to less and comes back goes on from its master, to the last bit.

What a bfloat16 stack trains on from is its float32 value, at its average where there is one.
"""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.training import borders
from stackwise.training.average import Average
from stackwise.training.manifest import read_manifest, read_part

LOW = {"compute": "bfloat16", "weights": "bfloat16"}


@pytest.fixture
def cycling(tiny) -> sw.Experiment:
    """Three visits to each of four stacks, packed in between; moments and masters are kept."""
    return tiny.replace(
        rack={"d_model": 64},
        curriculum={"name": "block_coordinate", "optimizer_state": "keep", "cycles": 3},
        precision={"frozen": "nf4", "master": "fp32"},
        budget={"tokens": 24 * 4 * 16},
        optim={"ema": None},
    )


@pytest.fixture(params=["keep", "reset"])
def averaged(request, tiny) -> sw.Experiment:
    """Two visits to each stack, in bfloat16, with a moving average."""
    return tiny.replace(
        curriculum={"name": "block_coordinate", "optimizer_state": request.param},
        precision={**LOW, "frozen": "nf4", "master": "fp32"},
    )


def master_of(run: sw.Run, stack: str) -> dict[str, torch.Tensor]:
    """The master of a stack in a run's last checkpoint."""
    folder = run.path / "rack"
    return read_part(folder, read_manifest(folder), f"{stack}.master")


def test_a_float32_master_loses_nothing_of_float32_weights(cycling, place) -> None:
    """Trunk and suffix are quantised, and a visit still begins with the very weights."""
    exp = cycling.replace(optim={"lr": 1e-30})
    run = sw.train(exp, place)
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed)
    kept = {name for name in read_manifest(run.path / "rack")["parts"] if name.endswith(".master")}
    assert kept == {"s0.master", "s1.master", "s2.master"}  # the last visit left s3 as it trains
    for stack in ("s0", "s1", "s2"):
        master = master_of(run, stack)
        for name, value in begun.stacks[stack].named_parameters():
            assert master[name].equal(value.detach()), f"{stack}.{name}"


def test_a_float32_master_keeps_what_bfloat16_weights_stand_for(cycling, place) -> None:
    """Small updates of three visits add up, though each is under the weights' spacing."""
    exp = cycling.replace(
        precision=LOW,
        optim={"lr": 1e-6, "schedule": "constant"},
    )
    master = master_of(sw.train(exp, place), "s0")
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed)
    weight = master["blocks.0.ffn.up.weight"]
    moved = (weight - begun.stacks["s0"].blocks[0].ffn.up.weight.detach().bfloat16().float()).abs()
    steps = 6  # of s0; AdamW moves each weight by about the rate in each
    assert 0.5 * steps * 1e-6 < moved.median() < 1.5 * steps * 1e-6


def test_it_is_the_average_that_the_stack_was_frozen_at(averaged, place, monkeypatch) -> None:
    frozen_at = {}
    adopt = Average.adopt

    def noted(average, parts, *rest):
        kept = average.values.items()
        frozen_at.update({name: v.clone() for (part, name), v in kept if part == "s0"})
        adopt(average, parts, *rest)

    def stop(work, numbers):
        work.stop_requested = work.at.step == work.steps_of(0)

    monkeypatch.setattr(Average, "adopt", noted)
    master = master_of(sw.train(averaged, place, on_step=stop), "s0")
    assert master.keys() == frozen_at.keys()
    assert all(torch.equal(master[name], value) for name, value in frozen_at.items())
    matrices = [value for value in master.values() if value.ndim == 2]
    assert not any(torch.equal(value, value.bfloat16().float()) for value in matrices)


def test_a_stack_that_comes_back_stands_for_it(averaged, place, monkeypatch) -> None:
    take, compared = borders.take_masters, []

    def checked(work, named, optimizer):
        take(work, named, optimizer)
        trained = {part for part, _ in named} - {"embedding", "head"}
        for stack in trained if work.at.stage else ():
            master = master_of(work.run, stack)
            for (part, name), parameter in named.items():
                if part == stack:
                    exact = optimizer.exact_n(parameter).view(parameter.shape)
                    assert torch.equal(exact, master[name]), (part, name)
                    compared.append((work.at.stage, part))

    monkeypatch.setattr(borders, "take_masters", checked)

    def stop(work, numbers):
        work.stop_requested = work.at.step == work.steps_of(0)

    run = sw.train(averaged, place, on_step=stop)
    sw.resume(run)
    assert {(4, "s0"), (5, "s1"), (6, "s2"), (7, "s3")} <= {*compared}


@pytest.mark.parametrize("master", ["bf16", "fp32"])
def test_what_is_not_packed_is_in_the_master_as_it_trains(averaged, place, master) -> None:
    """Norms, biases, and the directions of random features, which never train."""
    exp = averaged.replace(
        attention="kernel", rack={"bias": True}, precision={"master": master}, optim={"ema": None}
    )
    run = sw.train(exp, place)
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed)
    low = torch.bfloat16 if master == "bf16" else torch.float32
    for stack in ("s0", "s1", "s2"):
        values = master_of(run, stack)
        for name, value in values.items():
            linear = value.ndim == 2 and not name.endswith("omega_EM")
            assert value.dtype == (low if linear else torch.float32), name
        name = "blocks.0.attention.omega_EM"
        assert torch.equal(values[name], begun.stacks[stack].get_buffer(name))
    assert torch.equal(
        run.rack().stacks["s0"].blocks[0].attention.omega_EM,
        begun.stacks["s0"].blocks[0].attention.omega_EM,
    )
