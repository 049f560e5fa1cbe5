"""The user's command: when it is called, with what, and that nothing of a run hangs on it."""

from __future__ import annotations

import io
import json
import shlex
import sys

import pytest

import stackwise as sw
from stackwise import alerts
from stackwise.cli import main
from stackwise.detached import supervisor
from stackwise.detached.job import Job
from stackwise.errors import ExperimentError
from stackwise.runs import RunBusy, lock
from stackwise.study.arms import Arm
from stackwise.study.jobs import Job as Job_
from stackwise.study.jobs import carry_out
from stackwise.training.start import TrainingError, create_run

SAYS = """
import json, os, sys
told = {key: value for key, value in os.environ.items() if key.startswith("STACKWISE_")}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps([told, json.load(sys.stdin)]) + "\\n")
print("it was told")
"""


@pytest.fixture
def told(tmp_path):
    class Told:
        path = tmp_path / "told; touch evil"
        command = shlex.join([sys.executable, "-c", SAYS, str(path)])

        def __call__(self):
            text = self.path.read_text() if self.path.exists() else ""
            return [json.loads(line) for line in text.splitlines()]

    return Told()


def failing(work, numbers) -> None:
    raise TrainingError("a `$(touch evil)` \0 reason")


def test_a_run_that_finishes_is_told(tiny, place, told) -> None:
    run = sw.train(tiny, place, alert=told.command)
    ((variables, said),) = told()
    assert said["event"] == variables["STACKWISE_EVENT"] == "finished"
    assert said["id"] == variables["STACKWISE_ID"] == run.id
    assert said["run"] == variables["STACKWISE_RUN"] == str(run.path.resolve())
    assert said["bits_per_byte"] == run.result()["bits_per_byte"] and said["state"] == "finished"
    assert said["step"] == 16 and variables["STACKWISE_STEP"] == "16" and said["reason"] is None
    assert run.log() == ["it was told"]
    sw.resume(run, alert=told.command)  # it is finished already
    assert len(told()) == 1


def test_one_that_fails_is_told_with_the_reason(tiny, place, told, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_ALERT", told.command)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError):
        sw.train(tiny, place, on_step=failing)
    ((variables, said),) = told()
    assert said["event"] == "failed"
    assert said["reason"] == "TrainingError: a `$(touch evil)` \0 reason"
    assert variables["STACKWISE_REASON"] == "TrainingError: a `$(touch evil)`  reason"
    assert not list(tmp_path.glob("evil"))


def test_a_log_that_cannot_be_written_holds_no_alert_back(tiny, place, told, tmp_path) -> None:
    """Nor is a link followed: it may lead anywhere."""
    run = create_run(tiny, place)
    secret = tmp_path / "mine"
    secret.write_text("mine")
    (run.path / "log.txt").symlink_to(secret)
    with pytest.raises(OSError, match="link"):
        sw.resume(run, alert=told.command)
    ((_, said),) = told()
    assert said["event"] == "failed" and secret.read_text() == "mine"


def test_a_supervisor_that_cannot_write_how_it_ended_tells_it(
    tiny, place, told, monkeypatch
) -> None:
    def full(*arguments, **facts) -> None:
        raise OSError(28, "No space left on device")

    run = create_run(tiny, place)
    job = Job(str(run.path), "cpu", queue=False, alert=told.command)
    monkeypatch.setattr(supervisor, "supervise", full)
    monkeypatch.setattr(supervisor, "write_last", full)
    monkeypatch.setattr(supervisor, "answer", lambda word: None)
    monkeypatch.setattr(supervisor.signal, "signal", lambda *arguments: None)
    monkeypatch.setattr(supervisor.sys, "stdin", io.StringIO(job.line()))
    assert supervisor.main([]) == 0
    ((_, said),) = told()
    assert said["event"] == "failed" and "No space left on device" in said["reason"]


def test_runs_of_a_study_are_told(tiny, place, told, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("STACKWISE_ALERT", told.command)
    carry_out([Job_(Arm("one", tiny), 0)], place)
    assert [said["event"] for _, said in told()] == ["finished"]


def test_a_stop_and_a_busy_run_are_not_told(tiny, place, told) -> None:
    run = sw.train(
        tiny,
        place,
        alert=told.command,
        on_step=lambda work, _: setattr(work, "stop_requested", True),
    )
    held = lock.take(run.path)
    try:
        with pytest.raises(RunBusy):
            sw.resume(run, alert=told.command)
    finally:
        held.release()
    assert run.state == "stopped" and told() == []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/no/such/command", "FileNotFoundError"),
        ("sh -c 'exit 3'", "it ended with 3"),
        ("sh -c 'sleep 60 & wait'", "it did not end in 0 s and was killed"),
    ],
)
def test_one_that_fails_is_an_event_and_no_more(tiny, place, monkeypatch, command, why) -> None:
    monkeypatch.setattr(alerts, "LIMIT_SECONDS", 0.2)
    run = sw.train(tiny, place, alert=command)
    (event,) = run.events("alert_failed")
    assert run.state == "finished" and run.result()
    assert event["about"] == "finished" and event["why"].startswith(why)


def test_what_is_no_command_is_said_before_anything_trains(tiny, place) -> None:
    for wrong, why in (("'", "is no command line"), ("  ", "names no command")):
        with pytest.raises(ExperimentError, match=why):
            sw.train(tiny, place, alert=wrong)
        with pytest.raises(ExperimentError, match=why):
            sw.launch(tiny, place, alert=wrong)
    assert create_run(tiny, place).state == "made"


def test_the_command_line_takes_one_and_the_folder_gives_none(tiny, place, told) -> None:
    run = create_run(tiny, place)
    for name in ("alert", "alert.json", "STACKWISE_ALERT"):
        (run.path / name).write_text(told.command)
    for name in ("placement.yaml", "labels.json"):
        assert "alert" not in (run.path / name).read_text() if (run.path / name).exists() else True
    assert main(["resume", str(run.path), "--alert", "sh -c 'echo $STACKWISE_EVENT'"]) == 0
    assert run.log() == ["finished"] and told() == []
    assert main(["resume", str(run.path), "--watchdog", "5"]) == 2
