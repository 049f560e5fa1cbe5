"""Studies: equal compute, the same data, paired seeds, and no winner from one of them."""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.study import Arm, StudyResult, shrunk_to, spent
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


def test_an_arm_that_spends_less_than_the_budget_is_refused(tiny, monkeypatch) -> None:
    short = sw.Stage(path=("s0",), tokens=128)
    monkeypatch.setitem(sw.CURRICULA, "short", lambda exp: [short])
    with pytest.raises(ExperimentError) as error:
        sw.Study(tiny, vary={"curriculum": ["end_to_end", "short"]}, equal="tokens")
    assert str(error.value) == (
        "arm 'short': spends 128 tokens where every arm is to spend 1024, to within a step of 64; "
        "leave tokens of its stages empty, or give them the whole budget"
    )
    with pytest.raises(
        ExperimentError, match=r"arm 'short': spends .* flops where every arm is to"
    ):
        sw.Study(tiny, more={"short": tiny.replace(curriculum="short")})
    almost = sw.Stage(path=("s0",), tokens=960)
    monkeypatch.setitem(sw.CURRICULA, "short", lambda exp: [almost])
    assert sw.Study(tiny, vary={"curriculum": ["short"]}, equal="tokens")


def test_an_arm_that_cannot_be_planned_is_named_before_anything_trains(tiny) -> None:
    many = {"rack": {"stacks": 40}, "curriculum": "left_to_right"}
    with pytest.raises(ExperimentError, match=r"^arm 'deep': budget\.tokens: 1024 is less than"):
        sw.Study(tiny, more={"deep": tiny.replace(**many)}, equal="tokens")


def test_arms_of_one_kind_are_told_apart_by_what_differs(tiny) -> None:
    grow = [{"name": "grow", "by": by, "init": "random"} for by in ("one", "double")]
    study = sw.Study(tiny, vary={"curriculum": ["end_to_end", "grow", *grow]})
    names = ["end_to_end", "grow", "grow by=one init=random", "grow by=double init=random"]
    assert [arm.name for arm in study.arms] == names
    study = sw.Study(tiny, vary={"curriculum": grow, "optim.lr": [0.01, 0.02]})
    assert [arm.name for arm in study.arms] == [
        "grow by=one, 0.01",
        "grow by=one, 0.02",
        "grow by=double, 0.01",
        "grow by=double, 0.02",
    ]
    study = sw.Study(tiny, vary={"curriculum": ["end_to_end", grow[0]]})
    assert [arm.name for arm in study.arms] == ["end_to_end", "grow"]


def test_two_arms_of_one_name_are_refused(tiny) -> None:
    for given in (
        {"vary": {"optim.lr": [0.01, 0.01]}},
        {"vary": {"optim.lr": [0.02, 0.01]}, "more": {"0.01": tiny}},
    ):
        with pytest.raises(ExperimentError) as error:
            sw.Study(tiny, **given)
        assert str(error.value) == "arm '0.01': names two arms; give each a name of its own"


class Finished:
    """A run of which only the score is known."""

    def __init__(self, bits: float) -> None:
        self.id, self.bits = "run", bits

    def result(self) -> dict[str, float]:
        return {"bits_per_byte": self.bits}


def verdict(scores, schedule="wsd") -> str:
    runs = [
        (Arm(name, sw.Experiment(optim={"schedule": schedule})), seed, Finished(bits))
        for name, found in scores.items()
        for seed, bits in enumerate(found)
    ]
    return StudyResult("flops", tuple(runs)).verdict()


def test_the_verdict_says_no_more_than_the_runs_do() -> None:
    assert verdict({"a": [2.0], "b": [3.0]}) == (
        "Lowest here: a at 2.000 bits per byte. One seed names no winner: repeat with three or "
        "more."
    )
    assert verdict({"a": [2.0, 2.2, 2.4]}) == (
        "a: 2.200 bits per byte, mean of 3 seeds. One arm has nothing to win against."
    )
    assert verdict({"a": [2.0]}) == ("a: 2.000 bits per byte. One arm has nothing to win against.")
    assert verdict({"a": [2.0, 2.2, 2.4], "b": [3.0, 3.4, 3.8]}) == (
        "Lowest mean: a at 2.200 bits per byte; b is +1.200 ± 0.115 (paired over 3 seeds)."
    )


def test_the_verdict_flags_arms_whose_learning_rate_does_not_decay() -> None:
    said = verdict({"a": [2.0], "b": [3.0]}, schedule="constant")
    assert said.endswith(
        " Not a fair control: a, b trained at optim.schedule=constant, whose learning rate does "
        "not decay to zero."
    )


def test_nonsense_is_refused(tiny) -> None:
    with pytest.raises(ExperimentError, match="equal: 'time' is neither"):
        sw.Study(tiny, equal="time")
    with pytest.raises(ExperimentError, match="seeds: none given"):
        sw.Study(tiny, seeds=())
