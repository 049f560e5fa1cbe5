"""Whether runs may be compared is said in words, with what speaks against it."""

from __future__ import annotations

import json

import pytest

from stackwise.runs.events import read_events
from stackwise_widgets.charts import comparable


def test_runs_on_the_same_data_at_equal_compute_are_comparable(shipped, trained, asked) -> None:
    assert comparable(shipped.values()) == []
    assert comparable([trained("a"), trained("b", exp=asked(seed=1))]) == []


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"fingerprint": "cd" * 32}, "they saw other data; kjv abababab: a; kjv cdcdcdcd: b"),
        ({"tokenizer_size": 300}, "they have other tokenizers, so that bits per byte can be "
         "compared and nats per token cannot; 256 tokens: a; 300 tokens: b"),
        ({"heldout_bytes": 50}, "they were measured on other held-out text; 100 bytes: a; "
         "50 bytes: b"),
    ],
)  # fmt: skip
def test_other_data_are_named(trained, data, why) -> None:
    assert comparable([trained("a"), trained("b", data=data)]) == [why]


def test_other_windows_are_named(trained, asked) -> None:
    (why,) = comparable([trained("a"), trained("b", exp=asked(eval={"windows": 9}))])
    assert why == (
        "they were measured on other windows of the held-out text; "
        "eval.windows 48, eval.final None, eval.draws 1: a; "
        "eval.windows 9, eval.final None, eval.draws 1: b"
    )


def test_unequal_compute_and_other_kinds_of_figures_are_named(trained) -> None:
    cheap, dear, odd = trained("a"), trained("b", steps=(6, 5)), trained("c")
    path = odd.path / "events.jsonl"
    lines = [json.dumps(event) for event in read_events(path)]
    path.write_text("".join(f"{line}\n" for line in lines).replace("upper bound", "exact"))
    assert comparable([cheap, dear, odd]) == [
        "their figures are of other kinds; upper bound: a, b; exact: c",
        "they spent unequal compute, from 1e+10 FLOPs (a) to 1.1e+10 (b)",
    ]


def test_runs_that_are_not_done_or_damaged_come_first(made, attempt, trained) -> None:
    stopped, cut = made("stopped"), trained("cut")
    attempt(stopped, 1, 5, close="stopped")
    (cut.path / "stages.json").unlink()
    found = comparable([trained("whole"), stopped, made("fresh"), cut.path])
    assert found[0].startswith("cut is damaged: it has no stages.json")
    assert found[1:] == ["not finished: stopped (stopped)", "not finished: fresh (made)"]


def test_data_that_are_not_known_speak_against_nothing(trained) -> None:
    run = trained("b")
    (run.path / "provenance.json").write_text(json.dumps({"data": {}}))
    assert comparable([trained("a"), run]) == []


def forked(run, after_stage: int):
    path = run.path / "provenance.json"
    facts = run.provenance()
    facts["forked"] = {"run": "a", "after_stage": after_stage, "weights": "w"}
    path.write_text(json.dumps(facts))
    return run


def test_a_fork_beside_others_is_said_to_be_one(trained) -> None:
    whole, fork, other = trained("a"), forked(trained("b"), 0), forked(trained("c"), 1)
    before = "not all were trained from the beginning: "
    assert comparable([whole, fork]) == [f"{before}b is a fork after stage 0 of a"]
    assert comparable([fork, other]) == [
        f"{before}b is a fork after stage 0 of a, c is a fork after stage 1 of a"
    ]


def test_forks_from_one_place_have_the_same_beginning(trained, asked) -> None:
    fork, other = forked(trained("b"), 0), forked(trained("c", exp=asked(seed=1)), 0)
    assert comparable([fork, other]) == comparable([fork]) == []
