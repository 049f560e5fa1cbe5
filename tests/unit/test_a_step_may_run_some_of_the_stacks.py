"""`Stage.pick`: which stacks a step runs, and what that costs."""

import itertools
from collections import Counter

import pytest
import torch

import stackwise as sw
from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.memory.bytes import plan_rows
from stackwise.memory.flops import stage_flops_per_token
from stackwise.stage import run_share
from stackwise.training.picking import path_at

PATH = ("s0", "s1", "s2", "s3", "s4")
BASE = Experiment(
    rack={"stacks": 5, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
    budget={"tokens": 1_000_000},
)


@pytest.mark.parametrize("pick", [1, 2, 3, 4, 5])
def test_the_ends_always_run_and_the_others_equally_often(pick):
    stage, steps = sw.Stage(path=PATH, pick=pick), 3000
    drawn = [path_at(stage, 7, step) for step in range(steps)]
    assert all(len(path) == pick and sorted(path) == list(path) for path in drawn)
    ran = Counter(itertools.chain(*drawn))
    for stack in PATH:
        share = run_share(stage, stack)
        # Five standard deviations of a share in 3000 draws: under 0.046.
        assert ran[stack] / steps == pytest.approx(
            share, abs=5 * (share * (1 - share) / steps) ** 0.5
        )
    if pick > 1:
        assert ran["s0"] == ran["s4"] == steps
    assert drawn == [path_at(stage, 7, step) for step in range(steps)]
    if pick < 5 and pick != 2:
        assert drawn != [path_at(stage, 8, step) for step in range(steps)]


def test_shares_add_up_to_what_is_picked():
    for pick in range(1, 6):
        stage = sw.Stage(path=PATH, pick=pick)
        assert sum(run_share(stage, stack) for stack in PATH) == pytest.approx(pick)


@pytest.mark.parametrize("pick", [1, 2, 3, 4])
def test_a_token_costs_what_a_rack_of_as_many_stacks_costs(pick):
    """The blocks are alike, so that every path of a length costs the same."""
    exp = BASE.replace(curriculum={"name": "subnetwork", "lengths": (pick, 5)})
    picked = stages(exp)[0]
    small = BASE.replace(rack={"stacks": pick})
    whole = stages(small)[0]
    found, expected = stage_flops_per_token(exp, picked), stage_flops_per_token(small, whole)
    assert found.total == pytest.approx(expected.total, rel=1e-12)
    rows = plan_rows(exp, Placement(device="cpu"), [picked], card=False)
    less = plan_rows(small, Placement(device="cpu"), [whole], card=False)
    for key in ("activations", "gradients"):
        assert rows[0]["bytes"][key] == less[0]["bytes"][key]
    full = plan_rows(BASE, Placement(device="cpu"), stages(BASE), card=False)
    for key in ("weights", "optimizer", "average"):
        assert rows[0]["bytes"][key] == full[0]["bytes"][key]


def test_a_step_moves_the_stacks_of_its_path_alone(tmp_path):
    exp = BASE.replace(
        curriculum={"name": "subnetwork", "lengths": (3,)},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 12 * 64},
        eval={"points": 1, "windows": 4, "final": 4},
    )
    before: dict[str, list[torch.Tensor]] = {}
    moved: list[set[str]] = []

    def look(work, numbers):
        now = {s: [p.detach().clone() for p in m.parameters()] for s, m in work.rack.stacks.items()}
        pairs = ((s, zip(now[s], before.get(s, now[s]), strict=True)) for s in now)
        moved.append({s for s, both in pairs if any(not torch.equal(a, b) for a, b in both)})
        before.update(now)

    sw.train(exp, Placement(device="cpu", runs_dir=str(tmp_path)), on_step=look)
    stage = stages(exp)[0]
    assert moved[1:] == [set(path_at(stage, 0, step)) for step in range(1, 12)]
    assert len({frozenset(each) for each in moved[1:]}) > 1
