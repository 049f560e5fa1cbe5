"""When a process counts as hanging: with a clock of the test's own."""

from __future__ import annotations

import pytest

from stackwise.detached import watchdog
from stackwise.detached.watchdog import Restarts, Watch, Watchdog, watchdog_of
from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps
from stackwise.runs import status
from stackwise.runs.control import ask


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watchdog, "time", made)
    return made


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def say(folder, **facts) -> None:
    status.write(folder, {"state": "running", "attempt": 1, "step": 3, "work": 7, **facts})


def seconds_until(watch: Watch, clock: Clock, most: int = 4000, each=None) -> int | None:
    """Looks every half second; after how many of them it counts as hanging, None if never."""
    for count in range(2 * most):
        clock.now += 0.5
        if each is not None:
            each(count)
        if watch.hangs() is not None:
            return count // 2
    return None


def test_no_sign_of_work_for_so_long_is_hanging(folder, clock) -> None:
    say(folder)
    assert seconds_until(Watch(folder, Watchdog(minutes=1)), clock) == pytest.approx(60, abs=2)


def test_a_heartbeat_is_no_sign_of_work_and_each_of_these_is(folder, clock) -> None:
    def beats(key):
        return lambda count: say(folder, **{key: count})

    rule = Watchdog(minutes=1)
    assert seconds_until(Watch(folder, rule), clock, 300, beats("heartbeat")) is not None
    for key in ("step", "work", "attempt", "pid"):
        assert seconds_until(Watch(folder, rule), clock, 300, beats(key)) is None


def test_ten_usual_steps_are_waited_for(folder, clock) -> None:
    say(folder, step_seconds=30.0)
    found = seconds_until(Watch(folder, Watchdog(minutes=1)), clock)
    assert found == pytest.approx(300, abs=2)


def test_one_that_starts_has_half_an_hour(folder, clock) -> None:
    say(folder, state="starting")
    found = seconds_until(Watch(folder, Watchdog(minutes=1)), clock)
    assert found == pytest.approx(1800, abs=2)


@pytest.mark.parametrize("state", ["paused", "queued", "finished", "stopped", "failed"])
def test_one_that_is_not_to_work_does_not_hang(folder, clock, state) -> None:
    if state == "paused":
        ask(folder, "pause")
    say(folder, state=state)
    assert seconds_until(Watch(folder, Watchdog(minutes=1)), clock) is None


def test_a_held_one_that_was_told_to_go_on_hangs(folder, clock) -> None:
    ask(folder, "pause")
    ask(folder, "resume")
    say(folder, state="paused")
    found = seconds_until(Watch(folder, Watchdog(minutes=1)), clock)
    assert found == pytest.approx(60, abs=2)


def test_time_in_which_the_watch_itself_was_held_does_not_count(folder, clock) -> None:
    say(folder)
    watch = Watch(folder, Watchdog(minutes=1))
    assert watch.hangs() is None
    clock.now += 10_000
    assert watch.hangs() is None
    assert seconds_until(watch, clock) == pytest.approx(59, abs=2)


def test_without_minutes_nothing_hangs(folder, clock) -> None:
    say(folder)
    assert seconds_until(Watch(folder, Watchdog(died=True)), clock) is None


def test_restarts_are_counted_from_checkpoint_to_checkpoint(folder) -> None:
    restarts = Restarts(folder, Watchdog(minutes=1, times=2))
    assert [restarts.allowed() for _ in range(3)] == [True, True, False]
    (folder / "rack").mkdir()
    for step in (4, 9):
        (folder / "rack" / "manifest.json").write_text(dumps({"counters": {"total_steps": step}}))
        assert [restarts.allowed() for _ in range(3)] == [True, True, False]


def test_minutes_are_a_watchdog_and_no_number_is_refused() -> None:
    assert watchdog_of(5) == Watchdog(minutes=5.0)
    assert watchdog_of(None) is None and watchdog_of(Watchdog(died=True)).died
    for wrong in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ExperimentError, match="give a number over 0"):
            watchdog_of(wrong)
    with pytest.raises(ExperimentError, match="give 1 or more"):
        Watchdog(minutes=1, times=0)
