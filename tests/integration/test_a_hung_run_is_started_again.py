"""The watchdog, in real processes; when a run counts as hanging is in `tests/unit/runs/`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.detached import supervisor
from stackwise.detached.job import Job
from stackwise.jsontext import read_mapping
from stackwise.runs.lock import owner_of
from stackwise.training.start import create_run

# What stands for a trainer: it says what one says, and then does what its attempt is told to.
TRAINER = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(json.loads(sys.stdin.readline())["run"])
count = run / "attempts"
attempt = 1 + int(count.read_text() or 0) if count.exists() else 1
count.write_text(str(attempt))
deeds = sys.argv[1].split(",")
deed = deeds[min(attempt, len(deeds)) - 1]
def say(**facts):
    text = json.dumps({"state": "running", "attempt": attempt, "step": 2, "work": 1, **facts})
    (run / "said").write_text(text)
    os.replace(run / "said", run / "status.json")
if deed.startswith("saves"):
    (run / "rack").mkdir(exist_ok=True)
    text = json.dumps({"counters": {"total_steps": attempt}})
    (run / "rack" / "manifest.json").write_text(text)
say()
if deed == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if deed == "stops and hangs":
    (run / "control").mkdir()
    order = {"command": "stop", "time": time.time(), "patience": 1e9}
    (run / "control" / "0001.json").write_text(json.dumps(order))
if deed == "told":
    os.kill(os.getpid(), signal.SIGTERM)
if deed == "held":
    os.kill(os.getpid(), signal.SIGSTOP)
if deed == "fails":
    (run / "exit.json").write_text(json.dumps({"state": "failed", "error": "why", "attempt": 1}))
    say(state="failed")
    sys.exit(1)
while deed.endswith("hangs"):
    time.sleep(0.05)
    say(heartbeat=time.time())
say(state="finished")
"""
ALERT = 'sh -c \'echo "$STACKWISE_EVENT: $STACKWISE_REASON" >> "$STACKWISE_RUN/alerts"\''


@pytest.fixture
def made(tiny, place) -> sw.Run:
    return create_run(tiny, place)


@pytest.fixture
def supervised(made, monkeypatch):
    def supervise(deeds: str, **rule) -> tuple[str, list[str], list[str]]:
        def start(output: int) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", TRAINER, deeds]
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True)

        monkeypatch.setattr(supervisor, "start_trainer", start)
        watchdog = {"minutes": 0.3 / 60, "died": False, "times": 3, **rule}
        job = Job(str(made.path), "cpu", queue=False, alert=ALERT, watchdog=watchdog)
        ended = supervisor.supervise(made.path, job, None)
        supervisor.tell(job.alert, made.path, str(ended), supervisor.said_of_end(made.path))
        alerts = made.path / "alerts"
        told = [event["why"] for event in made.events("restarted")]
        return str(ended), told, alerts.read_text().splitlines() if alerts.exists() else []

    return supervise


def test_one_that_hangs_or_is_held_goes_on_in_another_process(made, supervised) -> None:
    ended, told, alerts = supervised("hangs,held,ends")
    assert (ended, len(told)) == ("finished", 2)
    assert all(why.startswith("no sign of work for ") and why.endswith("step 2") for why in told)
    assert [line.partition(":")[0] for line in alerts] == ["restarted", "restarted", "finished"]
    assert any("started again from its last checkpoint" in line for line in made.log())


def test_one_that_comes_no_further_is_given_up(made, supervised) -> None:
    ended, told, alerts = supervised("hangs", times=2)
    assert (ended, len(told), (made.path / "attempts").read_text()) == ("failed", 2, "3")
    assert "it was started again 2 times and came no further" in str(made.error())
    assert alerts[-1].startswith("failed: no sign of work for")


def test_one_that_saves_between_is_not(made, supervised) -> None:
    ended, told, _ = supervised("saves and hangs," * 4 + "ends", times=1)
    assert (ended, len(told)) == ("finished", 4)


def test_one_that_is_killed_goes_on_if_that_is_asked(made, supervised) -> None:
    ended, told, _ = supervised("killed,ends", died=True, minutes=None)
    assert ended == "finished"
    assert told == ["its process was ended by SIGKILL, as the system does when memory runs out"]


def test_one_that_is_killed_has_died_otherwise(made, supervised) -> None:
    ended, told, alerts = supervised("killed,ends")
    assert (ended, told) == ("died", [])
    assert alerts == [
        "died: its process was ended by SIGKILL, as the system does when memory runs out"
    ]


def test_one_that_is_told_to_stop_has_stopped(made, supervised) -> None:
    ended, told, _ = supervised("told,ends", died=True)
    assert (ended, told, read_mapping(made.path / "exit.json")["code"]) == ("stopped", [], 143)


def test_one_that_hangs_as_it_is_to_stop_is_ended_and_not_started_again(made, supervised) -> None:
    ended, told, _ = supervised("stops and hangs,ends")
    assert (ended, told) == ("stopped", [])


def test_one_that_fails_by_itself_has_failed(made, supervised) -> None:
    ended, told, alerts = supervised("fails,ends", died=True)
    assert (ended, told, alerts) == ("failed", [], ["failed: why"])


def test_an_alert_that_fails_changes_nothing(made, supervised, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "ALERT", "/no/such/command")
    ended, told, _ = supervised("hangs,ends")
    assert (ended, len(told)) == ("finished", 1)
    assert [event["about"] for event in made.events("alert_failed")] == ["restarted", "finished"]


def test_a_launched_run_that_is_held_by_a_signal_comes_to_the_same_weights(tiny, place) -> None:
    straight = sw.train(tiny, place, rerun=True)
    run = create_run(tiny, place, rerun=True)
    rule = sw.Watchdog(minutes=3 / 60, times=20)
    alert = f"sh -c 'echo $STACKWISE_EVENT >> {run.path}/alerts'"
    run.resume(watchdog=rule, alert=alert)
    run.pause()
    wait_for(lambda: run.state == "paused")
    first = owner_of(run.path)
    os.kill(first.pid, signal.SIGSTOP)
    run.resume()
    assert run.wait(100) == "finished"
    assert run.weights_hash() == straight.weights_hash()
    assert run.events("restarted") and read_mapping(run.path / "exit.json")["code"] == 0
    wait_for(lambda: "finished" in Path(run.path / "alerts").read_text())


def wait_for(what, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
