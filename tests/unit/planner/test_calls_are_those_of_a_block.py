"""A block makes as many calls of operators as launching is planned for."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stackwise.choice import parse
from stackwise.model.attention import ATTENTION
from stackwise.model.block import Block
from stackwise.model.shape import RackShape
from stackwise.planner.seconds import CALLS

VIEWS = ("view", "transpose", "slice", "expand", "detach", "alias", "squeeze", "split", "select")
VIEWS += ("permute", "aten.t.", "reshape")


class Counted(TorchDispatchMode):
    """Counts what computes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += not any(name in str(function) for name in VIEWS)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["mha", "gqa", "mqa", "mla"])
def test_forward_and_backward(kind) -> None:
    fewer = {"kv_heads": 2} if kind == "gqa" else {}
    shape = RackShape(stacks=1, blocks_per_stack=1, d_model=256, heads=4, **fewer)
    block = Block(shape, parse(ATTENTION, kind, "attention", "kind"), 0)
    x_BTD = torch.randn(1, 16, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(x_BTD, causal=True)
        with Counted() as ahead:
            y_BTD = block(x_BTD, causal=True)
    with Counted() as back:
        y_BTD.backward(torch.ones_like(y_BTD))
    found = {"forward": ahead.calls, "backward": back.calls}
    most = 1.9 if kind == "mla" else 1.1  # which makes keys and values of their own
    for way, calls in CALLS.items():
        assert 0.9 * calls <= found[way] <= most * calls
