"""`block_coordinate` serves every preset, and at 70B takes less than the frozen stacks alone."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.memory.bytes import plan_rows

LEAN = {
    "data": {"seq_len": 512},
    "optim": {"name": "lion8bit", "batch": 1, "grads": "in_backward", "clip": None, "ema": None},
    "precision": {
        "compute": "bfloat16",
        "weights": "bfloat16",
        "rounding": "stochastic",
        "frozen": "nf4",
        "master": "bf16",
    },
}


@pytest.mark.parametrize("name", sw.presets())
def test_every_stack_is_visited_in_each_cycle_beside_all_others(name) -> None:
    exp = sw.Experiment.preset(name).replace(curriculum={"name": "block_coordinate", "cycles": 3})
    ids, made = sw.stack_ids(exp.rack), sw.stages(exp)
    assert [stage.active for stage in made] == [(stack,) for stack in ids] * 3
    assert {stage.path for stage in made} == {ids}


@pytest.mark.parametrize("name", ["llama-2-70b", "llama-3-70b"])
def test_at_70b_it_takes_less_than_the_stacks_that_wait_would_in_four_bits(name) -> None:
    exp = sw.Experiment.preset(name).replace(
        curriculum={"name": "block_coordinate", "cycles": 1}, **LEAN
    )
    rows = plan_rows(exp, sw.Placement(trunk="streamed", checkpointing=True), sw.stages(exp))
    numbers = sw.count_parameters(exp.rack, exp.attention, sw.vocab_size(exp))
    assert numbers > 68e9 and len(rows) == 80
    assert max(row["bytes"]["total"] for row in rows) < numbers / 2
