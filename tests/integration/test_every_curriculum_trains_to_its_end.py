"""Every curriculum that ships trains, and spends what its ledger says."""

import pytest
import torch

import stackwise as sw
from stackwise.training.start import stages_of

EQUAL_MASS = {"masking": {"bands": "equal_mass"}}
VARIANTS = {
    "end_to_end": {},
    "left_to_right": {},
    "left_to_right, joined": {"init": "interpolate", "fuse": 0.3, "optimizer_state": "copy"},
    "left_to_right, copies": {"init": "copy+noise", "optimizer_state": "copy", "lr": "continue"},
    "right_to_left": {"fuse": 0.3},
    "freeze_thaw": {"init": "copy"},
    "grow": {"place": "between", "init": "interpolate", "optimizer_state": "copy"},
    "grow, in the middle": {"place": "middle", "by": "one", "optimizer_state": "copy"},
    "one_hop": {"source": 0},
    "one_hop, from two": {"source": 2, "init": "copy", "optimizer_state": "copy"},
    "block_coordinate": {"fuse": 0.2},
    "diffusion_blocks": {},
    "independent": {},
    "independent, all": {"join": "all"},
    "subnetwork": {"lengths": (1, 2, 3, 4)},
    "gradual_unfreezing": {},
}


def test_every_curriculum_is_here():
    assert {name.partition(",")[0] for name in VARIANTS} == set(sw.CURRICULA) - {"fusion"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_trains_to_its_end(tiny, place, variant):
    name = variant.partition(",")[0]
    banded = EQUAL_MASS if name == "diffusion_blocks" else {}
    exp = tiny.replace(curriculum={"name": name, **VARIANTS[variant]}, **banded)
    run = sw.train(exp, place)
    result, made = run.result(), stages_of(run)
    assert result["trained_tokens"] == sum(stage.tokens for stage in made)
    assert 0 < result["bits_per_byte"] < 8.5  # of 256 entries, 8 bits at the start
    planned = sum(row["flops"] for row in run.plan())
    assert result["flops"] == pytest.approx(planned, rel=0.05)  # the head's positions are drawn
    rack = run.rack()
    ids_BT = torch.arange(16)[None]
    assert rack(ids_BT).isfinite().all()


@pytest.mark.parametrize(
    ("name", "left"),
    [("right_to_left", True), ("grow", False), ("independent", False), ("one_hop", False)],
)
def test_depth_is_by_entry_where_the_rack_grew_to_the_left_alone(tiny, place, name, left):
    between = {"place": "between"} if name == "grow" else {}
    run = sw.train(tiny.replace(curriculum={"name": name, **between}), place)
    assert run.result()["grows_left"] is left
    assert len(run.result()["depth_losses"]) == 5
