"""A checkpoint at a border, before the next stage has begun, is a whole model of what there is."""

from __future__ import annotations

import numpy as np
import pytest

import stackwise as sw
from stackwise.sampling import sample_ids
from stackwise.stage import band_paths


@pytest.mark.parametrize(
    ("curriculum", "bands"),
    [
        ("left_to_right", None),
        ("right_to_left", None),
        ("grow", None),
        ("right_to_left", "equal_mass"),
    ],
)
def test_it_names_only_stacks_that_are_held(tiny, place, curriculum, bands) -> None:
    seen = {}

    def on_step(work, numbers):
        if work.at.step == 1 and work.at.stage:  # the last checkpoint is the border's
            rack = sw.Run(work.run.path).rack()
            assert {s for _, _, path in rack.paths for s in path} <= set(rack.held())
            ids_T = sample_ids(rack, np.array([1]), length=4)
            seen[work.at.stage] = rack.paths
            assert len(ids_T) == 5

    exp = tiny.replace(curriculum=curriculum, masking={"bands": bands})
    run = sw.train(exp, place, on_step=on_step)
    made = sw.stages(exp)
    assert set(seen) == set(range(1, len(made)))
    for number, paths in seen.items():
        lows = [made[i].band[0] for i in range(number)] if bands else [0.0]
        paths_seen = [path for _, _, path in paths]
        assert [low for low, _, _ in paths] == lows
        assert [high for _, high, _ in paths] == [*lows[1:], 1.0], "every noise has a path"
        assert paths_seen == [made[i].path for i in range(number)][-len(lows) :]
    assert sw.Run(run.path).rack().paths == band_paths(made)


def test_a_stage_that_has_begun_counts(tiny, place) -> None:
    def on_step(work, numbers):
        work.stop_requested = (work.at.stage, work.at.step) == (1, 1)

    run = sw.train(tiny.replace(curriculum="left_to_right"), place, on_step=on_step)
    assert run.state == "stopped"
    assert run.rack().paths == [(0.0, 1.0, ("s0", "s1"))]
