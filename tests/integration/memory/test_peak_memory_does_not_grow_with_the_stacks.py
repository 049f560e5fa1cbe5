"""Stages build, train, freeze and release stacks one at a time: the whole process's peak is flat.

A lent stack leaves its norms in memory, and a suffix that gradient crosses the input of each block:
under a percent of a stack each, here. The record of a step that a run measures is left out: at most
a quarter of a megabyte for a block of any width, which is a tenth of a stack of these narrow ones.
"""

from __future__ import annotations

import pytest

RUN = """
from peak import *
from stackwise.completion import packing
from stackwise.memory.stored import stack_bytes
facts, folder = told()
unrecorded()
peak, found = Peak(), []
place = sw.Placement(device="cpu", threads=1, runs_dir=str(folder), **facts["placement"])
for stacks in facts["stacks"]:
    exp = experiment(stacks, **facts["science"])
    warm(exp, place)
    found.append(peak.of(lambda: sw.train(exp, place)))
print(json.dumps([found, stack_bytes(exp, None), stack_bytes(exp, packing(exp.precision))]))
"""
BF16 = {"weights": "bfloat16", "compute": "bfloat16"}
NF4 = {"frozen": "nf4", "master": "none"}
CYCLE = {"curriculum": {"name": "block_coordinate", "cycles": 1}}
CASES = {
    "nf4 of float32": ({"precision": NF4}, {"trunk": "streamed"}),
    "as trained, bfloat16": ({"precision": BF16}, {"trunk": "streamed"}),
    "nf4 of bfloat16, cached": ({"precision": {**BF16, **NF4}}, {"trunk": "cached"}),
    "as trained, float32, cached": ({}, {"trunk": "cached"}),
    "cycling": (
        {**CYCLE, "precision": {"frozen": "nf4", "master": "fp32"}},
        {"trunk": "streamed", "checkpointing": True},
    ),
    "cycling, bfloat16, cached": (
        {**CYCLE, "precision": {**BF16, "frozen": "nf4", "master": "bf16"}},
        {"trunk": "cached", "checkpointing": True},
    ),
}
SLOPE = 0.05  # of a stack as it trains, per stack
GAPS = (
    0.25  # the same, where malloc keeps what is freed; 0.6 where each weight got memory of its own
)


@pytest.mark.parametrize("case", CASES)
def test_of_two_and_six(alone, case) -> None:
    science, placement = CASES[case]
    found, stack, _ = alone(RUN, stacks=[2, 6], science=science, placement=placement)
    assert min(found) > 4 * stack  # weights, gradients, moments: it is the training that is seen
    assert max(found) - min(found) < (6 - 2) * SLOPE * stack, found


@pytest.mark.parametrize("precision", [{}, NF4])
def test_where_all_are_resident_it_grows_by_each_as_it_is_frozen(alone, precision) -> None:
    science, placement = {"precision": precision}, {"trunk": "recompute"}
    (few, many), stack, frozen = alone(RUN, stacks=[2, 6], science=science, placement=placement)
    assert many - few == pytest.approx(4 * frozen, abs=4 * SLOPE * stack)
    assert 4 * frozen > (6 - 2) * SLOPE * stack  # so that it would be seen above


def test_a_heap_that_is_left_to_itself_has_no_gaps(alone) -> None:
    """What frozen weights leave in it while they are numbers, each stack once more."""
    found, stack = [], 0
    for stacks in (2, 8):
        rack = {"stacks": stacks, "blocks_per_stack": 1, "d_model": 512, "heads": 8}
        precision = {"frozen": "nf4", "master": "bf16"}
        facts = {"science": {**CYCLE, "rack": rack, "precision": precision}, "stacks": [stacks]}
        ((peak,), stack, _) = alone(RUN, malloc={}, placement={"trunk": "streamed"}, **facts)
        found.append(peak)
    assert found[1] - found[0] < (8 - 2) * GAPS * stack, found
