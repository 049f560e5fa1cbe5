"""plan.json says of every block what it takes, by category, and what it costs; and it adds up."""

from __future__ import annotations

from dataclasses import fields

import pytest

import stackwise as sw
from stackwise.memory.bytes import Bytes, plan_rows

CATEGORIES = [field.name for field in fields(Bytes)]


@pytest.fixture(params=["end_to_end", "left_to_right", "right_to_left", "grow"])
def exp(request):
    rack = {"stacks": 4, "blocks_per_stack": 2, "d_model": 16, "heads": 2}
    return sw.Experiment(curriculum=request.param, rack=rack)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_add_up_to_their_stack_and_stage(exp, checkpointing) -> None:
    placement = sw.Placement(checkpointing=checkpointing)
    made = sw.stages(exp)
    held = set()
    for row, stage in zip(plan_rows(exp, placement, made), made, strict=True):
        held |= {entry.stack for entry in stage.new}
        blocks = {f"{stack}.{i}" for stack in held for i in range(2)}
        assert set(row["block_bytes"]) == blocks
        for stack in held:
            for category in CATEGORIES:
                each = [row["block_bytes"][f"{stack}.{i}"][category] for i in range(2)]
                assert sum(each) == row["bytes_by_part"][stack][category]
        for block in row["block_bytes"].values():
            assert block["total"] == sum(block[category] for category in CATEGORIES)
        spent = row["flops_per_token"]
        assert set(row["block_flops_per_token"]) == {b for b in blocks if b[:2] in stage.path}
        assert sum(row["block_flops_per_token"].values()) == pytest.approx(
            spent["total"] - spent["head"], rel=1e-12
        )


def test_a_frozen_block_has_weights_alone_and_costs_its_forward_pass() -> None:
    exp = sw.Experiment(curriculum="left_to_right")
    row = plan_rows(exp, sw.Placement(), sw.stages(exp))[1]
    trunk, active = row["block_bytes"]["s0.0"], row["block_bytes"]["s1.0"]
    assert trunk["total"] == trunk["weights"] == active["weights"] == active["gradients"]
    counts = 4 * 7  # of the steps done, one for each tensor
    assert active["optimizer"] == 2 * active["weights"] + counts and active["activations"] > 0
    cost = row["block_flops_per_token"]
    assert cost["s1.0"] == 3 * cost["s0.0"], "forward, and two products of that size backward"
