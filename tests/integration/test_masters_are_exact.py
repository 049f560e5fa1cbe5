"""A stack that is frozen to less and comes back goes on from its master, to the last bit."""

from __future__ import annotations

import pytest

import stackwise as sw

LOW = {"compute": "bfloat16", "weights": "bfloat16"}


@pytest.fixture
def cycling(tiny):
    """Two visits to each of four stacks, whose moments and masters are kept."""
    return tiny.replace(
        rack={"d_model": 64},
        curriculum={"name": "block_coordinate", "optimizer_state": "keep", "cycles": 3},
        budget={"tokens": 24 * 4 * 16},
        optim={"ema": None},
    )


def test_a_float32_master_loses_nothing_of_float32_weights(cycling, place) -> None:
    """Trunk and suffix are quantised, and a visit still begins with the very weights."""
    exp = cycling.replace(precision={"frozen": "nf4", "master": "fp32"}, optim={"lr": 1e-30})
    kept = sw.train(exp, place)
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed)
    masters = masters_of(kept)
    assert set(masters) == {"s0", "s1", "s2"}  # the last visit left s3 as it trains
    for stack, values in masters.items():
        for name, value in begun.stacks[stack].named_parameters():
            assert values[name].equal(value.detach()), f"{stack}.{name}"


def test_a_float32_master_keeps_what_bfloat16_weights_stand_for(cycling, place) -> None:
    """Small updates of three visits add up, though each is under the weights' spacing."""
    exp = cycling.replace(
        precision={**LOW, "frozen": "nf4", "master": "fp32"},
        optim={"lr": 1e-6, "schedule": "constant"},
    )
    masters = masters_of(sw.train(exp, place))
    begun = sw.Rack(exp.rack, exp.attention, sw.vocab_size(exp), seed=exp.seed)
    weight = masters["s0"]["blocks.0.ffn.up.weight"]
    moved = (weight - begun.stacks["s0"].blocks[0].ffn.up.weight.detach().bfloat16().float()).abs()
    steps = 6  # of s0; AdamW moves each weight by about the rate in each
    assert 0.5 * steps * 1e-6 < moved.median() < 1.5 * steps * 1e-6


def masters_of(run: sw.Run) -> dict:
    """The masters of a run's last checkpoint, by stack."""
    from stackwise.training.checkpoint import read_manifest, read_part

    folder = run.path / "rack"
    manifest = read_manifest(folder)
    return {
        name.partition(".")[0]: read_part(folder, manifest, name)
        for name in manifest["parts"]
        if name.endswith(".master")
    }
