"""Why a run failed or died is what its last attempt wrote, not what is left of one before."""

from __future__ import annotations

import json

import pytest

from stackwise.runs import RunError

SILENT = "its process is gone, without a word"


@pytest.fixture
def ended(made):
    """`ended(status, exit)`: a run whose folder says so."""

    def make(status: dict, end: dict):
        run = made()
        (run.path / "status.json").write_text(json.dumps(status))
        (run.path / "exit.json").write_text(json.dumps(end))
        return run

    return make


def test_an_older_end_says_nothing(ended) -> None:
    stopped = {"state": "stopped", "attempt": 1, "error": None}
    assert ended({"state": "running", "attempt": 2}, stopped).error() == SILENT
    failed = {"state": "failed", "attempt": 1, "error": "OSError: disk full"}
    assert ended({"state": "running", "attempt": 2}, failed).error() == SILENT


def test_one_that_died_before_its_attempt_began_does_not_repeat_the_last_error(ended) -> None:
    failed = {"state": "failed", "attempt": 1, "error": "OSError: disk full"}
    assert ended({"state": "starting", "attempt": 1}, failed).error() == SILENT


def test_an_end_without_a_reason_is_said_to_be_one(ended) -> None:
    end = {"state": "failed", "attempt": 1, "error": None}
    run = ended({"state": "failed", "attempt": 1}, end)
    assert run.error() == "it failed, and could not write down why"


@pytest.mark.parametrize("state", ["failed", "died"])
def test_its_own_end_is_told(ended, state) -> None:
    end = {"state": state, "attempt": 2, "error": "OSError: disk full"}
    assert ended({"state": state, "attempt": 2}, end).error() == "OSError: disk full"


@pytest.mark.parametrize("text", ['{"counters": 5}', '{"counters": {"stage": "x"}}', "{}", "[]"])
def test_a_damaged_manifest_is_named(made, text) -> None:
    run = made()
    (run.path / "rack").mkdir()
    (run.path / "rack" / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=r"rack/manifest\.json is damaged; restore it"):
        run.stages_done()
