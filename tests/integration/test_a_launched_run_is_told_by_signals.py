"""A launched run is stopped and saved by a signal to either of its processes, in its queue, too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.detached.ending import verdict, write_end
from stackwise.jsontext import loads
from stackwise.runs import make_run, status
from stackwise.runs.lock import LOCK, SUPERVISOR, owner_of

LIMIT = 120.0


@pytest.fixture(autouse=True)
def ended(place) -> Iterator[None]:
    """No process outlives its test."""
    yield
    for run in sw.runs_in(place.runs_dir):
        run.stop(now=True)
        run.wait(LIMIT)


def until(what) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def tell(run: sw.Run, lock: str) -> None:
    owner = owner_of(run.path, lock)
    assert owner is not None
    os.kill(owner.pid, signal.SIGTERM)


def code(run: sw.Run) -> int:
    return int(loads((run.path / "exit.json").read_text())["code"])


def saved_steps(run: sw.Run) -> int:
    return int(loads((run.path / "rack" / "manifest.json").read_text())["counters"]["total_steps"])


def test_by_a_signal_to_either_process_and_in_its_queue(tiny, place) -> None:
    long = tiny.replace(budget={"tokens": 10_000_000})
    run = sw.launch(long, place)
    waits = sw.launch(long.replace(seed=1), place)
    until(lambda: len(run.metrics()) > 2)
    until(lambda: waits.state == "queued")
    tell(waits, SUPERVISOR)
    assert waits.wait(LIMIT) == "stopped" and code(waits) == 143
    assert waits.error() is None and "waits_for" not in waits.status()

    tell(run, SUPERVISOR)  # which passes it on, and stays to see the end
    assert run.wait(LIMIT) == "stopped" and code(run) == 130
    assert [event["command"] for event in run.events("asked")] == ["stop"]
    first = saved_steps(run)
    assert first == len(run.metrics())

    run.resume()
    until(lambda: len(run.metrics()) > first + 1)
    tell(run, LOCK)
    assert run.wait(LIMIT) == "stopped" and code(run) == 143
    assert saved_steps(run) == len(run.metrics()) > first


@pytest.mark.parametrize(
    ("ended", "state", "said"),
    [(-15, "stopped", 143), (-2, "stopped", 130), (143, "stopped", 143), (-9, "died", -9)],
    ids=str,
)
def test_one_that_ended_before_it_could_listen_was_stopped_all_the_same(
    tmp_path: Path, ended, state, said
) -> None:
    run = make_run(tmp_path, "toy", experiment="", placement="", stages=[], plan=[], facts={})
    status.begin(run.path, "starting")
    write_end(run.path, ended, False)
    assert run.state == state and code(run) == said
    assert verdict(run.path, ended, False)[0] == state
