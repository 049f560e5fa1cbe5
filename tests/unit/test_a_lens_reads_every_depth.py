"""The best guess after the embedding and after every block, through the rack's own head."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import stackwise as sw
from stackwise.lens import depth_flops, read_depths
from stackwise.model.rack import Rack


@pytest.fixture
def exp():
    return sw.Experiment(rack={"stacks": 3, "blocks_per_stack": 2, "d_model": 16, "heads": 2})


@pytest.fixture
def rack(exp):
    return Rack(exp.rack, exp.attention, 256, seed=1).requires_grad_(False)


def test_each_exit_reads_as_if_the_rack_ended_there(rack):
    ids_BT = torch.arange(20).view(2, 10)
    found = read_depths(rack, ids_BT, causal=True)
    assert found.names == ("embedding", *(f"s{i}.{j}" for i in range(3) for j in range(2)))
    assert found.ids_LBT.shape == found.prob_LBT.shape == (7, 2, 10)
    prob_BTV = rack(ids_BT, causal=True).softmax(-1)
    assert torch.equal(found.ids_LBT[-1], prob_BTV.argmax(-1))
    assert torch.allclose(found.prob_LBT[-1], prob_BTV.amax(-1))
    short = rack(ids_BT, causal=True, path=("s0",))
    assert torch.equal(found.ids_LBT[2], short.argmax(-1))
    assert torch.equal(found.ids_LBT[0], rack.logits(rack.embedding(ids_BT)).argmax(-1))


def test_it_goes_along_the_path_that_is_named(rack):
    found = read_depths(rack, torch.arange(10)[None], causal=False, path=("s2",))
    assert found.names == ("embedding", "s2.0", "s2.1")


def test_it_costs_what_is_said(rack, exp):
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        read_depths(rack, torch.arange(10)[None], causal=False)
    assert depth_flops(exp, ("s0", "s1", "s2"), 10) == counter.get_total_flops()
