"""Rotary tables are shared by blocks and calls: who asks first leaves nothing behind."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from stackwise.model.rack import Rack
from stackwise.model.shape import RackShape

SHAPE = RackShape(stacks=1, d_model=32, rope_base=12_345.0)


def trains(rack: Rack, ids_BT: torch.Tensor) -> bool:
    rack(ids_BT).square().sum().backward()
    return all(p.grad is not None for p in rack.stacks.parameters())


def test_a_rack_read_in_inference_mode_trains_afterwards(params) -> None:
    rack = Rack(SHAPE, params.attention("mha"), 9)
    ids_BT = torch.randint(9, (2, 21))
    with torch.inference_mode():
        rack(ids_BT)
    assert trains(rack, ids_BT)


def test_a_rack_traced_with_fake_tensors_leaves_the_next_one_real(params) -> None:
    with FakeTensorMode():
        fake = Rack(SHAPE, params.attention("mha"), 9)
        assert tuple(fake(torch.zeros(2, 22, dtype=torch.int64)).shape) == (2, 22, 9)
    assert trains(Rack(SHAPE, params.attention("mha"), 9), torch.randint(9, (2, 22)))


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "mla", "kernel", "linear", "window"])
@pytest.mark.parametrize("causal", [False, True])
def test_blocks_are_traced_without_a_graph_break(kind: str, causal: bool, params) -> None:
    rack = Rack(SHAPE, params.attention(kind), 9)
    ids_BT = torch.randint(9, (2, 23))
    plain = rack(ids_BT, causal=causal)
    torch._dynamo.reset()
    for stack in rack.stacks.values():
        for block in stack.blocks:
            block.compile(backend="eager", fullgraph=True)
    traced = rack(ids_BT, causal=causal)
    # Compiled, the norm is torch's own: the same sum in another order.
    assert (traced - plain).abs().max() < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rack(ids_BT, causal=causal).float().sum().backward()
