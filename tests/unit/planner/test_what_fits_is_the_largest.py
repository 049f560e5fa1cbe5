"""`--fit` finds, for each size of stack, the largest micro-batch that a machine holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

import stackwise as sw
from stackwise.planner.fit import divisors, fits
from stackwise.planner.hardware import HARDWARE
from stackwise.planner.needs import needs

EXP = sw.Experiment.preset("8b").replace(
    curriculum={"name": "left_to_right", "embedding": "first"},
    optim={"name": "adamw8bit", "batch": 8, "ema": None},
    precision={
        "compute": "bfloat16",
        "weights": "bfloat16",
        "rounding": "stochastic",
        "frozen": "nf4",
        "master": "bf16",
    },
)
PLACE = sw.Placement(checkpointing=True)
MACHINE = replace(HARDWARE["h200"], memory_bytes=25e9)


@pytest.fixture(scope="module")
def found():
    return fits(EXP, PLACE, MACHINE)


def test_all_that_is_found_fits_and_nothing_larger_does(found) -> None:
    assert len(found) > 2
    for each in found:
        assert each.needs.fits(MACHINE)
        shape = each.experiment.rack
        assert shape.stacks * shape.blocks_per_stack == 32
        micro = each.placement.micro_batch
        if micro < EXP.optim.batch:
            larger = each.placement.replace(micro_batch=2 * micro)
            assert not needs(each.experiment, larger).fits(MACHINE)


def test_the_largest_stack_comes_first_and_the_next_one_does_not_fit(found) -> None:
    sizes = [each.experiment.rack.blocks_per_stack for each in found]
    assert sizes == sorted(sizes, reverse=True)
    if sizes[0] < 32:
        cut = EXP.replace(rack={"stacks": 16 // sizes[0], "blocks_per_stack": 2 * sizes[0]})
        place = PLACE.replace(device="cuda", micro_batch=1)
        assert not needs(cut, place).fits(MACHINE)


def test_a_smaller_stack_leaves_room_for_a_larger_micro_batch(found) -> None:
    micros = [each.placement.micro_batch for each in found]
    assert micros == sorted(micros)


def test_where_a_trunk_does_not_fit_it_is_streamed() -> None:
    one = PLACE.replace(device="cuda", micro_batch=1)
    exp = EXP.replace(precision={"frozen": None, "master": "none"})  # of 14 GB
    resident, streamed = (needs(exp, one.replace(trunk=t)) for t in ("recompute", "streamed"))
    between = (resident.peak_bytes + streamed.peak_bytes) / 2
    assert streamed.peak_bytes < between < resident.peak_bytes
    found = fits(exp, PLACE, replace(MACHINE, memory_bytes=between))
    assert found and {each.placement.trunk for each in found} == {"streamed"}


def test_nothing_fits_a_machine_that_is_far_too_small() -> None:
    assert fits(EXP, PLACE, replace(MACHINE, memory_bytes=1e9)) == ()


def test_divisors() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]


def test_a_cut_that_cannot_be_trained_is_left_out() -> None:
    """Four steps are too few for sixteen stages, and enough for two."""
    toy = sw.Experiment.preset("toy")
    exp = toy.replace(
        rack={"stacks": 2, "blocks_per_stack": 8},
        curriculum="left_to_right",
        budget={"tokens": 4 * toy.optim.batch * toy.data.seq_len},
        masking={"bands": None},
    )
    found = fits(exp, sw.Placement(), HARDWARE["h200"])
    assert found and max(each.experiment.rack.stacks for each in found) < 16
    none = exp.replace(budget={"tokens": 1})
    with pytest.raises(sw.ExperimentError):
        fits(none, sw.Placement(), HARDWARE["h200"])


def test_where_caches_are_too_large_the_trunk_is_streamed() -> None:
    place = PLACE.replace(trunk="cached", cache_gb=1e-3)
    found = fits(EXP.replace(budget={"tokens": 10**9}), place, MACHINE)
    assert found and {each.placement.trunk for each in found} == {"streamed"}
    assert all(each.placement.cache_gb is None for each in found)


def test_the_disk_of_the_machine_at_hand_is_asked(monkeypatch) -> None:
    monkeypatch.setattr("stackwise.planner.needs.free_disk", lambda folder: 1)
    this = replace(HARDWARE["h200"], name="this", memory_bytes=1e15, host_bytes=1e15)
    assert fits(EXP, PLACE, HARDWARE["h200"]) and not fits(EXP, PLACE, this)
