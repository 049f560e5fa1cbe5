"""Of a row of like blocks the first and last are enough to find a stage's highest moment."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.memory import peak

CHANGES = {
    "as it is": {},
    "three blocks to a stack": {"rack.blocks_per_stack": 3},
    "every second block sees less": {"rack.window": (16, None), "rack.blocks_per_stack": 3},
    "in bfloat16, part of a batch": {"optim.batch": 12, "precision.compute": "bfloat16"},
    "steps in backward": {"optim.grads": "in_backward", "optim.clip": None},
}
PLACEMENTS = {
    "whole": {},
    "one by one": {"micro_batch": 1},
    "checkpointing": {"micro_batch": 8, "checkpointing": True},
}


@pytest.mark.parametrize("curriculum", sorted(sw.CURRICULA))
@pytest.mark.parametrize("placing", PLACEMENTS)
@pytest.mark.parametrize("change", CHANGES)
def test_no_other_is_higher(curriculum, placing, change, monkeypatch) -> None:
    small = {"rack.stacks": 7, "rack.heads": 2}
    try:
        exp = sw.Experiment().replace(**{**small, "curriculum": curriculum, **CHANGES[change]})
        place = sw.Placement(**PLACEMENTS[placing])
        few = sw.plan(exp, place, hardware="h200").rows
    except sw.ExperimentError as error:
        pytest.skip(f"refused: {error}")
    monkeypatch.setattr(peak, "telling", lambda blocks, again: {b[1] for b in blocks})
    assert few == sw.plan(exp, place, hardware="h200").rows


def test_a_long_suffix_takes_no_longer(monkeypatch) -> None:
    looked: list[str] = []
    real = peak.at_work
    monkeypatch.setattr(peak, "at_work", lambda *a: looked.append(a[0].at) or real(*a))
    counts = []
    for stacks in (6, 60):
        exp = sw.Experiment().replace(
            **{"rack.stacks": stacks, "curriculum": "right_to_left", "budget.tokens": 1e9}
        )
        sw.plan(exp, sw.Placement(), hardware="h200")
        counts.append(len(looked) / stacks)
        looked.clear()
    assert counts[1] <= 1.3 * counts[0]
