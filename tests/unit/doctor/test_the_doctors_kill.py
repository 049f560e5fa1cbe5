"""A run that was killed and ends elsewhere fails, and so does a kill that missed its stage."""

from __future__ import annotations

import pytest

from stackwise.config import Placement
from stackwise.planner.doctor import killing

GOOD = {
    "killed_in": killing.STAGE,
    "went_on_in": killing.STAGE,
    "went_on_from": 8,
    "hash": "a",
    "hash_of_the_whole": "a",
    "away": 0.0,
    "allowed": 0.0,
}


def test_the_same_weights_are_good() -> None:
    found = killing.judged(GOOD)
    assert found.state == "ok"
    assert "went on from step 8 to the same weights, bit for bit" in found.measured


def test_other_weights_fail() -> None:
    found = killing.judged({**GOOD, "hash": "b", "away": 1e-7})
    assert found.state == "failed"
    assert found.measured == "after a kill the weights end elsewhere: off by 1.0e-07 of their norm"
    assert "do not resume runs on this machine" in found.to_do


@pytest.mark.parametrize("away", [0.01, float("nan"), float("inf")])
def test_a_card_has_a_tolerance_that_is_told(away) -> None:
    near = killing.judged({**GOOD, "hash": "b", "away": 5e-4, "allowed": 1e-3})
    assert near.state == "ok"
    assert "to weights off by 5e-04, within 1e-03" in near.measured
    far = killing.judged({**GOOD, "hash": "b", "away": away, "allowed": 1e-3})
    assert far.state == "failed"


@pytest.mark.parametrize(
    "change",
    [
        {"killed_in": None},
        {"killed_in": 0, "went_on_in": 0},
        {"went_on_in": 2},
        {"went_on_from": 0},
        {"went_on_from": None, "went_on_in": None},
    ],
)
def test_a_kill_that_missed_the_middle_of_the_stage_proves_nothing(change) -> None:
    found = killing.judged({**GOOD, **change})
    assert found.state == "failed" and found.means == "what a kill does was not seen"


def at_a_stage(visit, changes):
    """A visit on which nothing is killed, and tasks answer as they are told to."""
    asked = []

    def call(task, **given):
        asked.append(task.__name__)
        answers = {
            "trained": {"path": f"whole {asked.count('trained')}", "hash": "a"},
            "resumed": {key: GOOD[key] for key in ("killed_in", "went_on_in", "went_on_from")},
            "apart": 0.0,
        }
        answer = changes.get((task.__name__, asked.count(task.__name__)), answers[task.__name__])
        return {"hash": "a", **answer} if isinstance(answer, dict) else answer

    return visit(call), asked


@pytest.fixture(autouse=True)
def no_kill(monkeypatch) -> None:
    monkeypatch.setattr(killing, "kill_one", lambda *words: "killed")


def test_a_processor_has_no_tolerance(visit) -> None:
    resumed = {**GOOD, "hash": "b"}
    here, asked = at_a_stage(visit, {("resumed", 1): resumed, ("apart", 1): 1e-6})
    assert killing.killed_and_resumed(here).state == "failed"
    assert asked == ["trained", "resumed", "apart"]


@pytest.mark.parametrize(("again", "state"), [("a", "failed"), ("c", "ok")])
def test_a_card_has_one_only_where_it_repeats_no_bits(visit, again, state) -> None:
    changes = {
        ("resumed", 1): {**GOOD, "hash": "b"},
        ("trained", 2): {"path": "whole 2", "hash": again},
        ("apart", 1): 1e-6,
        ("apart", 2): 1e-6,
    }
    here, _ = at_a_stage(lambda call: visit(call, device="cuda"), changes)
    assert killing.killed_and_resumed(here).state == state


def test_runs_are_told_apart_by_their_weights(tmp_path) -> None:
    exp = killing.experiment().replace(budget={"tokens": 3 * 4 * 32})
    place = {"device": "cpu", "runs_dir": str(tmp_path)}
    first, second = (killing.trained(exp.replace(seed=seed).to_yaml(), place) for seed in (0, 0))
    other = killing.trained(exp.replace(seed=1).to_yaml(), place)
    assert first["path"] != second["path"] and first["hash"] == second["hash"]
    assert killing.apart(first["path"], second["path"]) == 0
    assert killing.apart(first["path"], other["path"]) > 0.1


def test_the_run_is_long_enough_to_be_killed_in_its_middle() -> None:
    from stackwise.curriculum import stages

    exp = killing.experiment()
    each = [stage.tokens // (exp.optim.batch * exp.data.seq_len) for stage in stages(exp)]
    assert each == [killing.STEPS] * 3
    assert killing.STEP * killing.PAUSE_SECONDS > 2 * killing.CHECKPOINT_SECONDS
    assert Placement().checkpoint_seconds > 10  # so that the whole run saves at borders alone
