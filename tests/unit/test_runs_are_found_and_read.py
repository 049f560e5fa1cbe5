"""Events and metrics survive kills; runs are found by name; names stay inside their folder."""

from __future__ import annotations

import json
import math
import time

import pytest

from stackwise.runs import RunBusy, RunError, RunWriter, attach, make_run, runs_in
from stackwise.runs.events import read_events
from stackwise.runs.metrics import MetricLog, read_metrics


def row(step: int, loss: float = 1.0) -> dict:
    return {
        "step": step,
        "stage": 0,
        "stage_step": step,
        "tokens": step * 10,
        "flops": float(step),
        "loss": loss,
        "lr": 0.1,
        "grad_norm": 1.0,
        "masked_frac": 0.5,
        "seconds": 0.1 * step,
        "block_grad_norms": [0.5, math.nan],
    }


@pytest.fixture
def run(tmp_path):
    return make_run(
        tmp_path,
        "one",
        experiment="title: x\n",
        placement="{}\n",
        stages=[{"name": "s0"}],
        plan=[],
        facts={},
    )


def test_a_row_is_there_while_the_run_goes_on(run) -> None:
    with RunWriter(run.path) as writer:
        writer.metric(row(1))
        writer.flush()
        assert len(run.metrics()) == 1
        assert run.state == "running"
        writer.metric(row(2))
        writer.close("finished")
    assert list(run.metrics()["step"]) == [1, 2]
    assert run.state == "finished"


def test_a_cut_batch_is_not_there_and_the_rest_is(run) -> None:
    path = run.path / "metrics" / "0001.arrows"
    log = MetricLog(path)
    for step in range(1, 4):
        log.write(row(step))
        log.flush()
    whole = path.read_bytes()
    for cut in range(len(whole) - 200, len(whole), 37):
        path.write_bytes(whole[:cut])
        assert list(read_metrics(run.path)["step"]) in ([1, 2], [1, 2, 3])


def test_a_later_attempt_wins_from_its_first_step_on(run) -> None:
    for number, (first, last, loss) in enumerate([(1, 6, 1.0), (4, 8, 2.0), (6, 7, 3.0)], 1):
        log = MetricLog(run.path / "metrics" / f"{number:04d}.arrows")
        for step in range(first, last + 1):
            log.write(row(step, loss))
        log.close()
    found = read_metrics(run.path)
    assert list(found["step"]) == [1, 2, 3, 4, 5, 6, 7]
    assert list(found["loss"]) == [1, 1, 1, 2, 2, 3, 3]


def test_events_with_no_number_are_still_json(run) -> None:
    with RunWriter(run.path) as writer:
        writer.event("odd", values=[math.nan, math.inf, -math.inf, 1.5])
    line = (run.path / "events.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["values"] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_a_cut_event_is_dropped_by_the_next_attempt(run) -> None:
    with RunWriter(run.path) as writer:
        writer.event("first")
    path = run.path / "events.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "cu')
    assert [event["kind"] for event in read_events(path)] == ["first", "finished"]
    with RunWriter(run.path) as writer:
        writer.event("second")
    assert [e["kind"] for e in run.events()] == ["first", "finished", "second", "finished"]


def test_an_error_marks_the_run_failed_and_says_why(run) -> None:
    with pytest.raises(ValueError, match="boom"), RunWriter(run.path):
        raise ValueError("boom")
    assert run.state == "failed"
    assert run.events("failed")[0]["error"] == "ValueError: boom"


def test_two_writers_cannot_hold_one_run(run) -> None:
    with RunWriter(run.path), pytest.raises(RunBusy, match=r"run one: process .* is training it"):
        RunWriter(run.path)
    RunWriter(run.path).close("stopped")


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200, "a b", "ü"])
def test_a_name_cannot_leave_the_folder(tmp_path, name) -> None:
    with pytest.raises(RunError, match="only letters, digits"):
        make_run(tmp_path, name, experiment="", placement="", stages=[], plan=[], facts={})


def test_a_run_is_found_by_id_by_its_beginning_and_by_folder(run, tmp_path) -> None:
    assert attach("one", tmp_path).path == run.path
    assert attach("on", tmp_path).id == "one"
    assert attach(run.path).id == "one"
    with pytest.raises(RunError, match=r"two: no such run in .*; there are: one"):
        attach("two", tmp_path)


def test_a_hundred_runs_are_listed_in_a_second(tmp_path) -> None:
    for number in range(100):
        made = make_run(
            tmp_path, f"r{number}", experiment="", placement="", stages=[], plan=[], facts={}
        )
        (made.path / "status.json").write_text('{"state": "finished"}')
    began = time.perf_counter()
    states = [found.state for found in runs_in(tmp_path)]
    # Two seconds, not one: the machine that tests run on is shared.
    assert time.perf_counter() - began < 2
    assert states == ["finished"] * 100
