"""Studies: equal compute, the same data, paired seeds, and no winner from one of them."""

from __future__ import annotations

import re

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.memory.bytes import training_bytes
from stackwise.objective import corrupt
from stackwise.report import beside
from stackwise.study import Arm, StudyResult, shrunk_to, spent
from stackwise.training.run import Stopped

ARMS = ["end_to_end", "left_to_right", "right_to_left", "grow"]
PLAIN = {"lr_grid": None, "same_bytes": False}


@pytest.fixture
def study(tiny, place) -> sw.Study:
    return sw.Study(tiny, vary={"curriculum": ARMS}, seeds=(0, 1), placement=place, **PLAIN)


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
    study = sw.Study(tiny, vary={"curriculum": ARMS[:2]}, placement=place, **PLAIN)
    assert "One seed names no winner" in study.run().verdict()


def test_a_printed_result_has_its_table_the_baselines_of_its_text_and_the_verdict(
    tiny, place
) -> None:
    study = sw.Study(tiny, vary={"optim.lr": [0.01, 0.02]}, placement=place)
    result = study.run()
    lines = str(result).splitlines()
    assert lines[0].split()[:4] == ["arm", "bits", "per", "byte"]
    assert len(lines) == 2 + 2 + 1 + 1 + 1
    assert lines[5:] == [beside(result.runs[0][2]), result.verdict()]
    assert re.fullmatch(
        r"on the same text: constant 8\.000, unigram \d\.\d{3}, bigram \d\.\d{3}; "
        r"entropy of the source \d\.\d{3} bits per byte",
        lines[5],
    )


def test_seeds_are_told_apart_in_print_where_there_are_several(study) -> None:
    rows = [line.split() for line in str(study.run()).splitlines()[:10]]
    assert rows[0][:2] == ["arm", "seed"]
    assert [row[:2] for row in rows[2:]] == [[arm, str(s)] for s in (0, 1) for arm in ARMS]


def test_a_text_that_is_gone_is_said(tiny, place, tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    run = sw.train(tiny.replace(data={"corpus": f"text:{text}"}), place)
    text.unlink()
    assert re.match(
        r"no baselines beside it, since its text cannot be read: .*text\.txt: is not in",
        beside(run),
    )


@pytest.fixture
def seen(monkeypatch) -> list[list[int]]:
    """The samples of every batch that is corrupted for training, in the order of training."""
    batches: list[list[int]] = []

    def noting(rule, batch, *, progress):
        batches.append(batch.sample_B.tolist())
        return corrupt(rule, batch, progress=progress)

    monkeypatch.setattr("stackwise.training.work.corrupt", noting)
    return batches


def test_arms_of_one_seed_train_on_the_same_samples_in_the_same_order(study, place, seen) -> None:
    order = {}
    for arm in study.arms:
        run = sw.train(arm.experiment, place)
        assert len(seen) == len(run.metrics()), "every batch that was read was trained on"
        order[arm.name] = [*seen]
        seen.clear()
    longest = max(order.values(), key=len)
    assert len({len(batches) for batches in order.values()}) > 1
    for name, batches in order.items():
        assert batches == longest[: len(batches)], name
    sw.train(study.arms[0].experiment.replace(seed=1), place)
    assert seen != longest[: len(seen)], "the failing control: another seed"


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
        "control",
    ]
    study = sw.Study(tiny, vary={"curriculum": ["end_to_end", grow[0]]})
    assert [arm.name for arm in study.arms] == ["end_to_end", "grow"]  # it is the control


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

    def __init__(self, bits: float | None, note: str) -> None:
        self.id, self.bits, self.note = "run", bits, note

    def result(self) -> dict[str, float | str | None]:
        return {"bits_per_byte": self.bits, "note": self.note}


def verdict(scores, schedule="wsd", notes=None) -> str:
    notes = notes or dict.fromkeys(scores, "bound")
    runs = [
        (Arm(name, sw.Experiment(optim={"schedule": schedule})), seed, Finished(bits, notes[name]))
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


def test_figures_of_different_kinds_are_not_ranked() -> None:
    assert verdict({"a": [2.0], "b": [3.0]}, notes={"a": "exact", "b": "bound"}) == (
        "The figures are of different kinds, so nothing is ranked. a: exact; b: bound."
    )
    assert verdict({"a": [2.0, None], "b": [3.0, 3.0]}) == (
        "Some runs hold no result, so nothing is ranked."
    )


def test_the_verdict_flags_arms_whose_learning_rate_does_not_decay() -> None:
    said = verdict({"a": [2.0], "b": [3.0]}, schedule="constant")
    assert said.endswith(
        " Not a fair control: a, b trained at optim.schedule=constant, whose learning rate does "
        "not decay to zero."
    )


def test_nonsense_is_refused(tiny) -> None:
    with pytest.raises(ExperimentError, match="equal: 'time' is neither 'flops', 'tokens' nor"):
        sw.Study(tiny, equal="time")
    with pytest.raises(ExperimentError, match="seeds: none given"):
        sw.Study(tiny, seeds=())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"vary": {"budget.tokens": [1, 2]}},
            "vary: 'budget.tokens' cannot vary, since every arm gets the base's budget; make one "
            "study for each budget",
        ),
        (
            {"vary": {"seed": [1, 2]}},
            "vary: 'seed' cannot vary, since every arm runs once per seed; give seeds=(0, 1)",
        ),
        (
            {"vary": {"curriculum": "grow"}},
            "vary: 'curriculum': 'grow' is not a list of values; put it into one",
        ),
        (
            {"vary": {"curriculum": []}},
            "vary: 'curriculum' has no values; give some, or leave the key out",
        ),
        (
            {"vary": ["grow"]},
            "vary: ['grow'] is not a mapping of names, as {'optim.lr': [1e-3, 2e-3]} is",
        ),
        ({"seeds": 3}, "seeds: 3 is not a list of seeds, as (0, 1, 2) is"),
        ({"seeds": "ab"}, "seeds: 'ab' is not a list of seeds, as (0, 1, 2) is"),
        (
            {"seeds": [0, -1]},
            "seeds: -1 must be a whole number of 0 or more, under 2147483648",
        ),
        ({"seeds": [1.5]}, "seeds: 1.5 must be a whole number of 0 or more, under 2147483648"),
        ({"seeds": [1, 1]}, "seeds: 1 is given twice; each arm runs once per seed"),
        (
            {"more": {"b": 3}},
            "more: 'b': 3 is no experiment; give sw.Experiment(...) or a preset's name",
        ),
        (
            {"placement": "gpu"},
            "placement.device: 'gpu' is not one of 'auto', 'cpu' or 'cuda'; did you mean 'cpu'?",
        ),
    ],
)
def test_arguments_of_a_study_that_cannot_be_say_why(given, expected, tiny) -> None:
    with pytest.raises(ExperimentError) as error:
        sw.Study(tiny, **given)
    assert str(error.value) == expected
