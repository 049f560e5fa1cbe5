"""The matrix products that an optimizer makes are counted as torch's counter counts them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.memory.flops import step_flops_of
from stackwise.training.optim import Optimizer
from stackwise.training.trained import freeze_all_but
from stackwise.training.updates import OPTIMIZERS


@pytest.mark.parametrize("attention", ["mha", "mla"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_of_each_stage(name, attention) -> None:
    if OPTIMIZERS[name].missing():
        pytest.skip(OPTIMIZERS[name].missing())
    exp = sw.Experiment(
        rack={"stacks": 2, "blocks_per_stack": 2, "d_model": 24, "heads": 2, "d_ff": 40},
        data={"corpus": {"kind": "markov"}, "seq_len": 8},
        attention=attention,
        optim={"name": name, "batch": 3},
        curriculum="left_to_right",
        budget={"tokens": 4800},
    )
    for stage in sw.stages(exp):
        rack = sw.Rack(exp.rack, exp.attention, 256)
        named = freeze_all_but(rack.parts(), stage)
        optimizer = Optimizer(exp.optim, named)
        for parameter in named.values():
            parameter.grad = torch.ones_like(parameter)
        with FlopCounterMode(display=False) as counter:
            optimizer.step()
        assert counter.get_total_flops() == step_flops_of(exp, stage)
        cost = sw.stage_flops_per_token(exp, stage)
        assert cost.optimizer * 3 * 8 == pytest.approx(step_flops_of(exp, stage), rel=1e-12)
        assert cost.total == cost.trunk + cost.active + cost.suffix + cost.head + cost.optimizer
    assert (step_flops_of(exp, stage) > 0) == (name == "muon")


def test_a_hidden_matrix_by_hand() -> None:
    weight = nn.Parameter(torch.ones(6, 10))
    weight.grad = torch.ones(6, 10)
    optimizer = Optimizer(sw.Experiment(optim={"name": "muon"}).optim, {("s0", "w"): weight})
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    # x x', its square, and a product with x, five times: 2 m m n, 2 m m m, 2 m m n.
    assert counter.get_total_flops() == 5 * (2 * 6 * 6 * 10 + 2 * 6 * 6 * 6 + 2 * 6 * 6 * 10)
