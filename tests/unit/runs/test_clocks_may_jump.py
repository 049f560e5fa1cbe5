"""The clock of the day jumps by a year, in either direction: who is alive is told all the same."""

from __future__ import annotations

import json
import os
import time

import pytest

from stackwise.runs import RunBusy, RunWriter, heartbeat, make_run
from stackwise.runs.lock import this_process

YEAR = 365 * 86400.0


@pytest.fixture
def run(tmp_path):
    return make_run(
        tmp_path / "runs", "toy-1", experiment="", placement="", stages=[], plan=[], facts={}
    )


@pytest.fixture
def elsewhere(run):
    """A run whose process is on another machine, and what lets it write a heartbeat."""
    far = {**vars(this_process()), "boot": "another", "host": "far"}
    (run.path / "lock").write_text(json.dumps(far))

    def beat(at: float) -> None:
        part = run.path / ".status"
        part.write_text(json.dumps({"state": "running", "heartbeat": at}))
        os.utime(part, (at, at))
        os.replace(part, run.path / "status.json")

    return beat


def clock(monkeypatch, jump: float) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump)


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forwards", "backwards"])
@pytest.mark.parametrize("whose", ["the trainer's", "the reader's"])
def test_a_run_that_lives_is_not_stale(run, monkeypatch, jump, whose) -> None:
    with RunWriter(run.path) as writer:
        if whose == "the trainer's":
            with monkeypatch.context() as patch:
                clock(patch, jump)
                writer.tell(step=1)
        else:
            writer.tell(step=1)
            clock(monkeypatch, jump)
        assert run.state == "running"
        assert 0 <= run.summary()["heartbeat_age_seconds"] < 30


@pytest.mark.parametrize("jump", [YEAR, 0.0, -YEAR], ids=["forwards", "not", "backwards"])
def test_a_run_that_hangs_is_stale_whatever_the_clock_does(run, monkeypatch, jump) -> None:
    with RunWriter(run.path):
        status = run.status()
        silent = {**status, "heartbeat": status["heartbeat"] - 60, "uptime": status["uptime"] - 60}
        (run.path / "status.json").write_text(json.dumps(silent))
        os.utime(run.path / "status.json", (silent["heartbeat"],) * 2)
        clock(monkeypatch, jump)
        assert run.state == "stale"


def test_who_watches_a_run_elsewhere_goes_by_what_moves(run, elsewhere) -> None:
    elsewhere(time.time() - YEAR)
    assert run.state == "died"  # by the only clock there is
    elsewhere(time.time() - YEAR + 1)
    assert run.state == "running"


def test_a_clock_that_went_back_holds_no_run_for_ever(run, elsewhere, monkeypatch) -> None:
    """Before, a heartbeat from the future was fresh until the future came."""
    monkeypatch.setattr(heartbeat, "WATCH_SECONDS", 0.2)
    elsewhere(time.time() + YEAR)
    assert run.state == "died"
    with RunWriter(run.path) as writer:
        assert writer.lock.stale.host == "far"


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forwards", "backwards"])
def test_no_run_is_taken_from_a_process_elsewhere_that_lives(run, elsewhere, monkeypatch, jump):
    """The disk's own clock is asked first, which does not jump with this machine's."""
    elsewhere(time.time())
    clock(monkeypatch, jump)
    with pytest.raises(RunBusy, match="on far is training it, by its heartbeat"):
        RunWriter(run.path)


def test_nor_while_its_heartbeat_moves(run, elsewhere, monkeypatch) -> None:
    elsewhere(time.time() - YEAR)
    looks = []

    def beat(seconds: float) -> None:
        looks.append(seconds)
        elsewhere(time.time() - YEAR + len(looks))

    monkeypatch.setattr(heartbeat.time, "sleep", beat)
    with pytest.raises(RunBusy, match="on far"):
        RunWriter(run.path)
    assert len(looks) == 1
