"""Studies: equal compute, the same data, paired seeds, and no winner from one of them."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.study import shrunk_to, spent
from stackwise.training.run import Stopped

ARMS = ["end_to_end", "left_to_right", "right_to_left", "grow"]


@pytest.fixture
def study(tiny, place) -> sw.Study:
    return sw.Study(tiny, vary={"curriculum": ARMS}, seeds=(0, 1), placement=place)


def test_every_arm_plans_the_flops_of_the_base(study, tiny) -> None:
    planned = spent(tiny)["flops"]
    for arm in study.arms:
        step = spent(arm.experiment)["flops"] / (spent(arm.experiment)["tokens"] / 64)
        assert spent(arm.experiment)["flops"] == pytest.approx(planned, abs=1.5 * step)


def test_equal_tokens_when_asked(tiny) -> None:
    study = sw.Study(tiny, vary={"curriculum": ARMS}, equal="tokens")
    assert {spent(arm.experiment)["tokens"] for arm in study.arms} == {1024}


def test_a_study_runs_every_arm_with_every_seed_and_attaches_the_second_time(study) -> None:
    result = study.run()
    frame = result.to_frame()
    assert len(frame) == 8
    assert list(frame["arm"].unique()) == ARMS
    assert frame["bits_per_byte"].between(1, 10).all()
    assert len(frame["run"].unique()) == 8
    again = study.run().to_frame()
    assert again.equals(frame), "finished runs are not run again"
    assert "too few to claim" in result.verdict()
    assert "paired over 2 seeds" in result.verdict()


def test_one_seed_names_no_winner(tiny, place) -> None:
    study = sw.Study(tiny, vary={"curriculum": ARMS[:2]}, placement=place)
    assert "One seed names no winner" in study.run().verdict()


def test_arms_of_one_seed_see_the_same_samples_in_the_same_order(tiny, place) -> None:
    from stackwise.data.batches import batch_at
    from stackwise.training.start import dataset_of

    data = dataset_of(tiny, ".")
    seen = [batch_at(data, first, 4, tiny.seed).sample_B.tolist() for first in range(0, 64, 4)]
    assert len(seen) == len({tuple(row) for row in seen})


def test_shrinking_takes_the_deepest_rack_that_fits(tiny) -> None:
    limit = training_bytes(tiny.replace(curriculum="left_to_right"), sw.Placement())
    small = shrunk_to(tiny, limit)
    assert training_bytes(small, sw.Placement()) <= limit
    deeper = {"stacks": 1, "blocks_per_stack": small.rack.blocks_per_stack + 1}
    assert training_bytes(tiny.replace(rack=deeper), sw.Placement()) > limit
    assert small.rack.d_model == tiny.rack.d_model
    with pytest.raises(ExperimentError, match="no end-to-end rack of this width trains in 10"):
        shrunk_to(tiny, 10)


def test_a_stopped_study_says_so_and_goes_on(study) -> None:
    def stop(work, numbers):
        work.stop_requested = True

    with pytest.raises(Stopped, match="end_to_end stopped and saved; the same study goes on"):
        study.run(on_step=stop)
    assert len(study.run().to_frame()) == 8


def test_nonsense_is_refused(tiny) -> None:
    with pytest.raises(ExperimentError, match="equal: 'time' is neither"):
        sw.Study(tiny, equal="time")
    with pytest.raises(ExperimentError, match="seeds: none given"):
        sw.Study(tiny, seeds=())
