"""A year forwards, then two back, in the middle of a run: numbers, order and durations hold."""

from __future__ import annotations

import time

import stackwise as sw
from stackwise.training.run import execute
from stackwise.training.start import create_run

YEAR = 365 * 86400.0
NUMBERS = ["step", "stage", "loss", "grad_norm", "flops", "lr"]


def test_nothing_but_the_times_of_events_changes(tiny, place, monkeypatch) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    straight = sw.train(exp, place)
    run, real, states = create_run(exp, place, rerun=True), time.time, []

    def jumps(work, numbers):
        jump = {4: YEAR, 8: -YEAR}.get(work.at.total_steps)
        if jump is not None:
            monkeypatch.setattr(time, "time", lambda: real() + jump)
        work.writer.tell()
        states.append(run.state)
        work.stop_requested = work.at.total_steps == 10

    execute(run, on_step=jumps)
    execute(run)
    assert states == ["running"] * 10
    assert run.weights_hash() == straight.weights_hash()
    assert run.metrics()[NUMBERS].equals(straight.metrics()[NUMBERS])
    assert [event["seq"] for event in run.events()] == list(range(len(run.events())))
    result, seconds = run.result(), list(run.metrics()["seconds"])
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert all(result[key] >= 0 for key in ("seconds", "probe_seconds", "probe_frac"))
    assert run.summary()["state"] == "finished"
