"""Playing goes on in a thread, obeys pause and close within a move, and survives what it meets."""

from __future__ import annotations

import threading

import pytest

import stackwise as sw
from stackwise_widgets.panel import Guard
from stackwise_widgets.player import Player
from stackwise_widgets.teach import Teach


@pytest.fixture(autouse=True, scope="module")
def cold():
    """Nothing of memory's peak is measured here, so that warming up for it would be for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stackwise.memory.meter.warm_up", lambda device: None)
        yield


class Moves:
    """Moves that a test can wait for."""

    def __init__(self, last: int = 10**9) -> None:
        self.count, self.last, self.raises = 0, last, None
        self.turn = threading.Condition()
        self.threads: set[str] = set()

    def __call__(self) -> bool:
        with self.turn:
            self.count += 1
            self.threads.add(threading.current_thread().name)
            self.turn.notify_all()
        if self.raises is not None:
            raise self.raises
        return self.count < self.last

    def wait(self, count: int) -> bool:
        with self.turn:
            return self.turn.wait_for(lambda: self.count >= count, 10)


def player_of(moves: Moves, seconds: float = 0.0) -> tuple[Player, list[bool]]:
    said: list[bool] = []
    player = Player("playing", moves, lambda: seconds, Guard(), lambda: said.append(player.playing))
    return player, said


def test_it_plays_until_it_is_told_to_stand_still() -> None:
    moves = Moves()
    player, said = player_of(moves)
    player.play()
    assert moves.wait(3)
    player.pause()
    assert player.settle(10) and said == [True, False]
    count = moves.count
    assert player.settle(1) and moves.count == count
    assert moves.threads == {"stackwise playing"}
    player.play()
    assert moves.wait(count + 1)
    assert player.close()


def test_it_stops_at_the_end_by_itself() -> None:
    moves = Moves(last=4)
    player, said = player_of(moves)
    player.play()
    assert player.settle(10) and moves.count == 4
    assert not player.playing and said == [True, False]


def test_pause_and_close_do_not_wait_for_the_time_between_moves() -> None:
    moves = Moves()
    player, _ = player_of(moves, seconds=600)
    player.play()
    assert moves.wait(1)
    player.pause()
    assert player.settle(5)
    player.play()
    assert moves.wait(2)
    assert player.close(5) and moves.count == 2


def test_what_is_asked_while_it_plays_is_done_at_once() -> None:
    moves, done = Moves(), threading.Event()
    player, _ = player_of(moves, seconds=600)
    player.play()
    assert moves.wait(1)
    player.ask(done.set)
    assert done.wait(5)
    assert player.close()


def test_what_raises_ends_playing_and_is_kept() -> None:
    moves = Moves()
    moves.raises = ValueError("no further")
    player, said = player_of(moves)
    player.play()
    assert player.settle(10) and said == [True, False] and moves.count == 1
    assert [str(error) for error in player.guard.errors] == ["playing: no further"]
    done = threading.Event()
    player.ask(done.set)
    assert done.wait(5)  # it does what it is asked afterwards


def test_what_is_asked_first_drops_what_waits() -> None:
    player, _ = player_of(Moves())
    held, begun, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        held.wait(10)

    player.ask(hold)
    assert begun.wait(5)
    for n in range(20):
        player.ask(lambda n=n: done.append(n))
    player.ask(lambda: done.append("first"), first=True)
    player.ask(lambda: done.append("then"))
    held.set()
    assert player.settle(10) and done == ["first", "then"]


def test_every_click_is_done_in_order() -> None:
    player, _ = player_of(Moves())
    held, begun, done = threading.Event(), threading.Event(), []
    player.ask(lambda: (begun.set(), held.wait(10)))
    assert begun.wait(5)
    for n in range(100):
        player.ask(lambda n=n: done.append(n))
    held.set()
    assert player.settle(10) and done == list(range(100))


def test_closing_does_one_last_thing_after_the_move_in_hand() -> None:
    player, _ = player_of(Moves())
    held, begun, done = threading.Event(), threading.Event(), []
    player.ask(lambda: (begun.set(), held.wait(10)))
    assert begun.wait(5)
    player.ask(lambda: done.append("dropped"))
    assert not player.close(lambda: done.append("last"), timeout=0) and not done
    held.set()
    assert player.settle(10) and done == ["last"]
    assert player.close(lambda: done.append("again")) and done == ["last"]


def test_after_closing_nothing_is_done() -> None:
    moves = Moves()
    player, _ = player_of(moves)
    assert player.close()
    player.play()
    player.ask(moves)
    assert player.settle(5) and moves.count == 0


@pytest.fixture
def exp() -> sw.Experiment:
    return sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 4 * 4 * 16},
        curriculum="left_to_right",
    )


def test_the_panel_plays_a_stage_to_its_end(exp) -> None:
    teach = Teach(exp, seconds=0.05)
    try:
        assert teach.settle()
        teach.buttons["play"].click()
        assert teach.buttons["play"].description == "Pause"
        assert teach.settle(60)
        assert teach.lesson.finished and "The stage ends here" in teach.told.value
        assert teach.buttons["play"].description == "Play" and teach.errors == []
        assert len(teach.lesson.losses) == teach.lesson.stepper.steps
    finally:
        teach.close()


def test_back_and_reset_end_playing(exp) -> None:
    teach = Teach(exp, seconds=60)
    try:
        for name in ("back", "reset"):
            teach.buttons["play"].click()
            assert teach.player.playing
            teach.buttons[name].click()
            assert not teach.player.playing and teach.settle()
        assert teach.phase is None and teach.errors == []
    finally:
        teach.close()


def test_the_newest_choice_of_a_stage_counts_while_an_older_one_is_trained_for(exp) -> None:
    teach = Teach(exp.replace(budget={"tokens": 300 * 4 * 16}))
    try:
        begun = threading.Event()
        teach.told.observe(lambda _: begun.set(), "value")
        assert teach.settle()
        begun.clear()
        teach.stage.value = 1  # trains stage 0 first
        assert begun.wait(10)
        teach.stage.value = 0
        assert teach.settle() and teach.errors == []
        assert teach.lesson.stepper.number == 0 and "Ready" in teach.told.value
        teach.next_step()
        assert teach.settle() and teach.phase.stage == 0
    finally:
        teach.close()


def test_closing_while_earlier_stages_are_trained_leaves_nothing(exp) -> None:
    teach = Teach(exp.replace(budget={"tokens": 300 * 4 * 16}), 1)
    teach.close()
    assert teach.settle(10) and teach.lesson.stepper is None and teach.errors == []
