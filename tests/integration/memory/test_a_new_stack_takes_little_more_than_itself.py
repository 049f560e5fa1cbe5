"""A stack is drawn in pieces: building one holds a piece more than its weights, in either dtype."""

from __future__ import annotations

import pytest

from stackwise.model.init import PIECE

RUN = """
from peak import *
from stackwise.model.rack import Rack
facts, folder = told()
shape = sw.RackShape(**facts["shape"])
rack = Rack(shape, "mha", 64, stacks=("s1",), dtype=getattr(torch, facts["dtype"]))
peak = Peak()
found = peak.of(lambda: rack.add("s0"))
print(json.dumps([found, sum(p.nbytes for p in rack.stacks["s0"].parameters())]))
"""
WIDE = {"stacks": 2, "blocks_per_stack": 1, "d_model": 1536, "heads": 8}  # 115 MB in float32
OWN_BYTES = 3 << 20


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_in_float32_and_bfloat16(alone, dtype) -> None:
    found, weights = alone(RUN, shape=WIDE, dtype=dtype)
    piece = 4 * PIECE  # drawn in float32
    assert weights <= found < weights + piece + OWN_BYTES, (found, weights)
    assert weights > 3 * piece  # a float32 copy of all, or of a bfloat16 stack, would be seen
