"""The lock of a run: one live owner, named; a dead one's place is taken and an event says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from stackwise.runs import RunBusy, RunWriter, heartbeat, make_run
from stackwise.runs.lock import this_process

OWNER = """
import sys, pathlib
from stackwise.runs import RunWriter
with RunWriter(pathlib.Path(sys.argv[1])) as writer:
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path):
    return make_run(
        tmp_path / "runs", "toy-1", experiment="", placement="", stages=[], plan=[], facts={}
    )


@pytest.fixture
def owner(run):
    """A process that holds the run until its input ends."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", OWNER, str(run.path)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_live_owner_is_named_and_its_end_frees_the_run(run, owner) -> None:
    assert run.state == "running"
    with pytest.raises(RunBusy) as error:
        RunWriter(run.path)
    assert str(error.value) == (
        f"run toy-1: process {owner.pid} is training it; watch it, or stop it first"
    )
    owner.communicate()
    assert run.state == "finished"
    with RunWriter(run.path) as writer:
        assert writer.attempt == 2
    assert run.events("lock_taken_over") == []


def test_a_dead_owner_is_replaced_and_an_event_says_so(run, owner) -> None:
    owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while run.state != "died":  # a corpse that nobody has waited for is dead all the same
        assert time.monotonic() < deadline
    with RunWriter(run.path):
        assert run.state == "running"
    (event,) = run.events("lock_taken_over")
    assert (event["pid"], event["why"]) == (owner.pid, "its process died")


def test_this_process_cannot_hold_a_run_twice(run) -> None:
    with RunWriter(run.path), pytest.raises(RunBusy, match=f"process {os.getpid()} is training"):
        RunWriter(run.path)


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_run(run) -> None:
    with RunWriter(run.path) as writer:
        end, other_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(other_end)
            os.read(end, 1)
            os._exit(0)
        writer.close("stopped")
    with RunWriter(run.path):
        assert run.state == "running"
    os.close(other_end)
    os.waitpid(child, 0)


def test_a_number_that_another_process_has_now_is_not_taken_for_the_owner(run) -> None:
    stale = {**vars(this_process()), "started": "1"}
    (run.path / "lock").write_text(json.dumps(stale))
    (run.path / "status.json").write_text('{"state": "running"}')
    assert run.state == "died"
    with RunWriter(run.path):
        pass
    assert len(run.events("lock_taken_over")) == 1


def test_an_owner_on_another_machine_is_judged_by_its_heartbeat(run) -> None:
    far = {**vars(this_process()), "boot": "another", "host": "far"}
    (run.path / "lock").write_text(json.dumps(far))
    status = run.path / "status.json"
    status.write_text('{"state": "running"}')
    assert run.state == "running"
    with pytest.raises(RunBusy, match=f"process {os.getpid()} on far is training it"):
        RunWriter(run.path)
    minutes_ago = time.time() - 120
    os.utime(status, (minutes_ago, minutes_ago))
    heartbeat._seen.clear()  # what reads it saw no other file before
    assert run.state == "died"
    with RunWriter(run.path) as writer:
        assert writer.lock.stale is not None and writer.lock.stale.host == "far"


@pytest.mark.parametrize("text", ["", "4711", "{", "[]", '{"pid": 1}'])
def test_a_damaged_lock_is_nobodys(run, text) -> None:
    (run.path / "lock").write_text(text)
    (run.path / "status.json").write_text('{"state": "running"}')
    assert run.state == "died"
    with RunWriter(run.path):
        assert run.state == "running"
