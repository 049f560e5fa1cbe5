"""Reading events takes as long as parsing their lines, and those of one kind a part of that.

Against `json.loads` of the same lines, the best of several turns, in seconds of this process. How
many seconds a million take is in `benchmarks/million.py`.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stackwise.runs.event_log import EventLog
from stackwise.runs.events import found_in, read_events
from stackwise.runs.following import Follower

EVENTS, LOOKS, TURNS = 12_000, 12, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of a run with an event per step, and a look now and then; one loss is no number."""
    found = tmp_path_factory.mktemp("many")
    log = EventLog(found / "events.jsonl", 1)
    for step in range(EVENTS):
        look = step % (EVENTS // LOOKS) == 0
        loss = float("nan") if step == EVENTS // 2 else 1 / (1 + step)
        log.write("eval" if look else "note", {"step": step, "loss": loss, "text": "of a step"})
    log.close()
    return found


def best(work: Callable[[], Any]) -> float:
    """Seconds that it computes in the quickest of some turns."""
    found = []
    for _ in range(TURNS):
        gc.collect()
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def line_by_line(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_of_them(folder) -> None:
    path = folder / "events.jsonl"
    assert len(read_events(path)) == EVENTS
    assert best(lambda: read_events(path)) < best(lambda: line_by_line(path))


def test_those_of_a_kind(folder) -> None:
    path = folder / "events.jsonl"
    assert len(read_events(path, "eval")) == LOOKS
    assert best(lambda: read_events(path, "eval")) < 0.2 * best(lambda: line_by_line(path))
    known = found_in(path, "eval").whole
    assert best(lambda: found_in(path, "eval", known)) < 0.05 * best(lambda: line_by_line(path))


def test_whoever_follows_a_run(folder) -> None:
    path = folder / "events.jsonl"
    follower = Follower(folder)
    assert follower.read() and len(follower.looks) == LOOKS and follower.lines == EVENTS

    def first() -> None:
        Follower(folder).read()

    assert best(first) < 0.4 * best(lambda: line_by_line(path))
    assert best(follower.read) < 0.01 * best(lambda: line_by_line(path))
