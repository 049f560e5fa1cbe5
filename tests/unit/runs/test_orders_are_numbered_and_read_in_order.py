"""What a run is asked: numbered files, each written once, read in order, whatever lies beside."""

from __future__ import annotations

import threading

import pytest

from stackwise.runs.control import COMMANDS, ask, newest, orders


def test_they_are_read_in_the_order_of_asking(tmp_path) -> None:
    for command in COMMANDS:
        ask(tmp_path, command)
    assert [order.command for order in orders(tmp_path)] == list(COMMANDS)
    assert [order.number for order in orders(tmp_path, after=2)] == [3, 4]
    assert newest(tmp_path) == 4


def test_many_at_once_get_numbers_of_their_own(tmp_path) -> None:
    threads = [
        threading.Thread(target=lambda: [ask(tmp_path, "pause") for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [order.number for order in orders(tmp_path)] == list(range(1, 81))
    assert len(list((tmp_path / "control").iterdir())) == 80


def test_a_run_that_was_asked_nothing_has_no_orders(tmp_path) -> None:
    assert (orders(tmp_path), newest(tmp_path)) == ([], 0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"command": "burn", "time": 1}', '{"command": "stop"}', "null"]
)
def test_what_is_no_order_is_left_out(tmp_path, text) -> None:
    ask(tmp_path, "pause")
    (tmp_path / "control" / "0002.json").write_text(text)
    (tmp_path / "control" / "note.txt").write_text("mine")
    ask(tmp_path, "resume")
    assert [order.command for order in orders(tmp_path)] == ["pause", "resume"]


def test_an_unknown_command_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError) as error:
        ask(tmp_path, "halt")  # type: ignore[arg-type]
    assert str(error.value) == ("command: 'halt' is not one of pause, resume, stop, stop-now")


def test_patience_is_handed_on(tmp_path) -> None:
    ask(tmp_path, "stop", patience=2.5)
    assert orders(tmp_path)[0].patience == 2.5
