"""The thread that reads: what it reads next, that nobody else reads, and how it ends."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise.trunk.filling import Files
from stackwise.trunk.stream import BlockReader
from stackwise.trunk.travel import Travel


@pytest.fixture(scope="module")
def six(stored):
    return stored(6)


def numbers(six, fetched, count):
    """The next fetches, by number."""
    return [six.keys.index(fetched.get(timeout=10)) for _ in range(count)]


def test_going_forward_it_reads_the_next_and_then_the_first(six, fetched):
    with BlockReader(six.blocks, slots=2) as reader:
        assert numbers(six, fetched, 2) == [0, 1]  # before anything is asked for
        for number in range(6):
            reader.tensors(six.keys[number])
            if number:
                assert numbers(six, fetched, 1) == [(number + 1) % 6]
        reader.tensors(six.keys[0])
        assert numbers(six, fetched, 1) == [1]


def test_going_back_it_reads_the_one_before(six, fetched):
    with BlockReader(six.blocks, slots=2) as reader:
        assert numbers(six, fetched, 2) == [0, 1]
        reader.tensors(six.keys[5])
        assert numbers(six, fetched, 1) == [5]  # and keeps 0: it cannot know the direction yet
        reader.tensors(six.keys[4])
        assert numbers(six, fetched, 2) == [4, 3]
        for number in (3, 2, 1):
            reader.tensors(six.keys[number])
            assert numbers(six, fetched, 1) == [number - 1]


def test_where_a_step_turned_it_turns_again(six, fetched):
    """From the second step on, a suffix with three slots fetches only what it must.

    Forward and backward ask for 0 1 2 3 4 5 4 3 2 1 0. At each end three blocks are there already,
    so that of a step's ten moves six bring a block: no reader with three slots can do with fewer.
    """
    there_and_back = [*range(6), *range(4, -1, -1)]
    with BlockReader(six.blocks, slots=3) as reader:
        for _ in range(4):
            for number in there_and_back:
                reader.tensors(six.keys[number])
        before = reader.did
        for _ in range(10):
            for number in there_and_back:
                reader.tensors(six.keys[number])
        after = reader.did
    assert after.blocks - before.blocks == 60


def test_more_slots_than_blocks_read_each_once(six, fetched):
    with BlockReader(six.blocks, slots=7) as reader:
        for number in (3, 1, 5, 0, 2, 4, 3, 3, 0):
            reader.tensors(six.keys[number])
    assert sorted(numbers(six, fetched, 6)) == list(range(6))
    assert fetched.empty()


def test_only_its_own_thread_reads(six, monkeypatch):
    readers = set()
    read = Files.read

    def noted(self, *arguments):
        readers.add(threading.current_thread().name)
        read(self, *arguments)

    monkeypatch.setattr(Files, "read", noted)
    with BlockReader(six.blocks, slots=2) as reader:
        for number in (0, 1, 2, 5, 0, 3):
            reader.tensors(six.keys[number])
    assert readers == {"stackwise-blocks"}


def test_it_counts_what_it_read_and_what_was_waited_for(six, monkeypatch, fetched):
    gate = threading.Event()
    read = Files.read

    def held(self, *arguments):
        assert gate.wait(10)
        read(self, *arguments)

    with BlockReader(six.blocks, slots=2) as reader:
        assert numbers(six, fetched, 2) == [0, 1]
        reader.tensors(six.keys[0])
        assert reader.did.waits == 0
        monkeypatch.setattr(Files, "read", held)
        opener = threading.Timer(0.05, gate.set)
        opener.start()
        reader.tensors(six.keys[3])
        assert numbers(six, fetched, 2) == [3, 4]
    did = reader.did
    assert did.waits == 1
    assert 0 < did.wait_seconds < 10
    assert did.blocks == 4
    assert did.bytes == sum(
        tensor.numel() * tensor.itemsize
        for number in (0, 1, 3, 4)
        for tensor in six.truth[six.keys[number]].values()
    )


def test_leaving_the_block_ends_the_thread(six):
    with pytest.raises(KeyError), BlockReader(six.blocks) as reader:
        raise KeyError("mine")
    assert "stackwise-blocks" not in [thread.name for thread in threading.enumerate()]
    reader.close()
    with pytest.raises(RuntimeError, match=r"^block 's0.0': its reader is closed; open another"):
        reader.tensors("s0.0")


def test_who_waits_when_it_is_closed_is_told(six, monkeypatch):
    gate, waiting = threading.Event(), threading.Event()
    told = []

    def held(self, *arguments):
        waiting.set()
        assert gate.wait(10)

    monkeypatch.setattr(Files, "read", held)
    reader = BlockReader(six.blocks)

    def ask():
        with pytest.raises(RuntimeError) as error:
            reader.tensors("s1.0")
        told.append(str(error.value))

    asking = threading.Thread(target=ask)
    assert waiting.wait(10)
    asking.start()
    closing = threading.Thread(target=reader.close)
    closing.start()
    gate.set()
    for thread in (asking, closing):
        thread.join(10)
        assert not thread.is_alive()
    assert told == ["block 's1.0': its reader is closed; open another one"]


def ahead(way, count, keys="abcdef"):
    travel = Travel(keys)
    for key in way:
        travel.move_to(key)
    return "".join(travel.wanted(count))


@pytest.mark.parametrize(
    ("way", "wanted"),
    [
        ("", "abc"),
        ("a", "abc"),
        ("d", "def"),
        ("e", "efa"),
        ("ab", "bcd"),
        ("ef", "fab"),
        ("fe", "edc"),
        ("ba", "abc"),
        ("da", "abc"),
        ("abcdef", "fab"),
        ("abcdefabc", "cde"),
        ("abcdefedcbab", "bcd"),
        ("abcdefedcbabcde", "efd"),  # the turn is known, and what comes after it
        ("abdcabd", "dca"),  # whatever the way was
    ],
)
def test_what_followed_the_last_time_is_what_is_wanted(way, wanted):
    assert ahead(way, 3) == wanted


@given(way=st.text("abcdef", max_size=30), count=st.integers(2, 8))
def test_no_block_is_wanted_twice_and_the_present_one_always(way, count):
    wanted = ahead(way, count)
    assert len(set(wanted)) == len(wanted) <= count
    assert wanted.startswith(way[-1:])
