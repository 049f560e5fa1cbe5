"""Who trains a launched run and who looks after it are both killed, whichever goes first."""

from __future__ import annotations

import os
import signal
import time

import stackwise as sw
from stackwise.runs.lock import LOCK, SUPERVISOR, is_alive, is_held, owner_of

LIMIT = 120.0


def until(what) -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def taken(run: sw.Run) -> int:
    return len(run.metrics())


def killed(run: sw.Run, *locks: str) -> None:
    """Kill who holds these locks, one right after the other."""
    owners = [owner_of(run.path, lock) for lock in locks]
    assert None not in owners
    for owner in owners:
        os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not any(is_alive(owner) for owner in owners))


def test_whichever_goes_first_it_is_told_as_dead_and_ends_the_same(tiny, place, tmp_path) -> None:
    exp = tiny.replace(budget={"tokens": 400 * 64}, curriculum="left_to_right")
    place = place.replace(threads=1, checkpoint_seconds=0.05)
    run = sw.launch(exp, place)
    for order in ((SUPERVISOR, LOCK), (LOCK, SUPERVISOR)):
        before = taken(run)
        until(lambda: run.state == "running" and taken(run) > before and run.has_weights())  # noqa: B023
        killed(run, *order)
        assert run.state == "died" and not run.is_live
        assert not is_held(run.path, LOCK) and not is_held(run.path, SUPERVISOR)
        assert str(run.error()).startswith("its process ")  # gone, or by SIGKILL
        assert "stackwise resume" in str(run.what_now())
        run.resume()
    assert run.wait(LIMIT) == "finished"
    assert len(run.events("resumed")) >= 1
    whole = sw.train(exp, place.replace(runs_dir=str(tmp_path / "here")))
    assert run.weights_hash() == whole.weights_hash()
    assert run.metrics()["loss"].equals(whole.metrics()["loss"])
