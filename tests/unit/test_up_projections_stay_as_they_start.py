"""`rack.frozen_up`: up and gate never move, and nothing is held or computed for them."""

from __future__ import annotations

import pytest
import torch

import stackwise as sw
from stackwise.memory.bytes import plan_rows
from stackwise.memory.flops import path_flops_per_token
from stackwise.model.block import block_frozen_parameters
from stackwise.training.updates import OPTIMIZERS

RACK = {"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2, "d_ff": 32}


def experiment(frozen_up: bool = True, optim: dict | None = None, **rack) -> sw.Experiment:
    return sw.Experiment(
        rack={**RACK, "frozen_up": frozen_up, **rack},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4, "lr": 1e-3, **(optim or {})},
        budget={"tokens": 6 * 4 * 16},
        eval={"points": 1, "windows": 4, "final": 4},
    )


@pytest.mark.parametrize(("grads", "ffn"), [("whole", "swiglu"), ("in_backward", "gelu")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_they_are_the_same_bits_after_training(name, grads, ffn, tmp_path) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    moves = {"name": name, "grads": grads, **({"clip": None} if grads == "in_backward" else {})}
    exp = experiment(optim=moves, ffn=ffn, bias=True)
    run = sw.train(exp, sw.Placement(runs_dir=str(tmp_path), device="cpu"))
    started = sw.Rack(exp.rack, exp.attention, 256, seed=exp.seed).state_dict()
    for key, value in run.rack().state_dict().items():
        still = ".ffn.up." in key or ".ffn.gate." in key
        assert torch.equal(value, started[key]) == still, key


@pytest.mark.parametrize("ffn", ["swiglu", "gelu"])
def test_the_plan_leaves_their_training_out(ffn) -> None:
    plain, frozen = (experiment(flag, ffn=ffn) for flag in (False, True))
    numbers = 2 * block_frozen_parameters(frozen.rack)  # of two blocks
    assert numbers == 2 * (2 if ffn == "swiglu" else 1) * 16 * 32
    (before,), (after,) = (
        plan_rows(exp, sw.Placement(), sw.stages(exp)) for exp in (plain, frozen)
    )
    spared = {key: before["bytes"][key] - after["bytes"][key] for key in before["bytes"]}
    assert spared["weights"] == 0
    assert spared["gradients"] == spared["average"] == 4 * numbers
    tensors = 2 * (2 if ffn == "swiglu" else 1)
    assert spared["optimizer"] == 8 * numbers + 4 * tensors  # two moments, a counted step each
    assert spared["activations"] == 2 * 4 * 16 * 16 * 4  # what up and gate read, in two blocks
    (stage,), (same,) = sw.stages(plain), sw.stages(frozen)
    costs = path_flops_per_token(plain, stage), path_flops_per_token(frozen, same)
    assert sum(costs[0].values()) - sum(costs[1].values()) == 2 * numbers
