"""Tickets: the lowest number of a living process has the device; those of the dead are removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from stackwise.detached.device_queue import (
    before,
    folder_of,
    give_back,
    holding,
    share,
    take_ticket,
    tickets,
)
from stackwise.runs.lock import this_process


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))


def test_who_comes_later_waits(tmp_path) -> None:
    first, second = take_ticket("cpu", tmp_path / "a"), take_ticket("cpu", tmp_path / "b")
    assert before(first) == []
    assert [ticket.run for ticket in before(second)] == [str(tmp_path / "a")]
    give_back(first)
    assert before(second) == []


def test_a_ticket_counts_while_one_of_its_processes_lives(tmp_path) -> None:
    """That of a run which is started again is nobody else's between its two trainers."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first, second = take_ticket("cpu", tmp_path / "a"), take_ticket("cpu", tmp_path / "b")
    share(first, child.pid)
    for _ in range(2):
        assert [ticket.run for ticket in before(second)] == [str(tmp_path / "a")]
        child.kill()
        child.wait()


def test_devices_have_queues_of_their_own(tmp_path, monkeypatch) -> None:
    take_ticket("cpu", tmp_path / "a")
    assert before(take_ticket("cuda", tmp_path / "b")) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert before(take_ticket("cuda", tmp_path / "c")) == []
    assert len(before(take_ticket("cpu", tmp_path / "d"))) == 1


def test_the_dead_are_not_waited_for(tmp_path) -> None:
    code = (
        "import pathlib, sys; from stackwise.detached.device_queue import take_ticket;"
        "take_ticket('cpu', pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "dead")], check=True)
    assert len(list(folder_of("cpu").iterdir())) == 1
    mine = take_ticket("cpu", tmp_path / "mine")
    assert before(mine) == []
    assert [ticket.path for ticket in tickets(folder_of("cpu"))] == [mine.path]
    assert list(folder_of("cpu").iterdir()) == [mine.path]


@pytest.mark.parametrize("text", ["", "{", '{"run": "x"}', '{"run": "x", "owners": [{"pid": 1}]}'])
def test_a_ticket_that_cannot_be_read_goes_after_a_while(tmp_path, text) -> None:
    folder = folder_of("cpu")
    folder.mkdir(parents=True)
    damaged = folder / "000000001.json"
    damaged.write_text(text)
    mine = take_ticket("cpu", tmp_path)
    assert before(mine) == [] and damaged.exists()  # somebody may be mending it
    old = time.time() - 60
    os.utime(damaged, (old, old))
    assert before(mine) == [] and not damaged.exists()


def test_another_process_of_the_same_number_is_not_taken_for_the_owner(tmp_path) -> None:
    owner = {**asdict(this_process()), "started": "1"}
    folder = folder_of("cpu")
    folder.mkdir(parents=True)
    (folder / "000000001.json").write_text(json.dumps({"run": "x", "owners": [owner]}))
    assert before(take_ticket("cpu", tmp_path)) == []


def test_what_is_held_is_given_back_whatever_happens(tmp_path) -> None:
    with pytest.raises(RuntimeError), holding("cpu", tmp_path / "a") as others:
        assert others == []
        with holding("cpu", tmp_path / "b") as ahead:
            assert [ticket.run for ticket in ahead] == [str(tmp_path / "a")]
        raise RuntimeError
    assert tickets(folder_of("cpu")) == []


def test_without_a_place_for_tickets_nobody_queues(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "file"))
    with holding("cpu", tmp_path) as others:
        assert others == []
