"""Items made in a background thread: same order, same errors, and no thread left behind."""

import os
import sys
import threading

import pytest

from stackwise.data.batches import prefetch


def names():
    return [thread.name for thread in threading.enumerate()]


def test_items_come_in_order_and_all_of_them():
    with prefetch(iter(range(100)), ahead=3) as items:
        assert list(items) == list(range(100))
        assert list(items) == []
    assert "stackwise-prefetch" not in names()


def test_an_error_arrives_where_it_happened():
    def broken():
        yield 1
        yield 2
        raise ZeroDivisionError("on the third")

    seen = []
    with pytest.raises(ZeroDivisionError, match="on the third"), prefetch(broken()) as items:
        seen.extend(items)
    with prefetch(broken()) as items:
        got = iter(items)
        assert [next(got), next(got)] == [1, 2]
        with pytest.raises(ZeroDivisionError):
            next(got)
    assert "stackwise-prefetch" not in names()


def test_leaving_early_ends_the_thread_and_closes_the_generator():
    closed = threading.Event()

    def endless():
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            closed.set()

    with prefetch(endless(), ahead=2) as items:
        for item in items:
            if item == 5:
                break
    assert closed.is_set()
    assert "stackwise-prefetch" not in names()


def test_an_error_of_the_reader_ends_the_thread_too():
    with pytest.raises(KeyError), prefetch(iter(range(1000))) as items:
        for _ in items:
            raise KeyError("mine")
    assert "stackwise-prefetch" not in names()


def test_it_runs_ahead_but_no_further_than_it_is_told():
    """Two wait in the queue and a third is in hand: the fourth is not begun."""
    made = []
    third = threading.Event()

    def counted():
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with prefetch(counted(), ahead=2) as items:
        assert third.wait(10)
        assert made == [0, 1, 2]
        assert next(iter(items)) == 0


def test_none_is_an_item_like_any_other():
    with prefetch(iter([None, 1, None])) as items:
        assert list(items) == [None, 1, None]


def test_ahead_of_nothing_is_refused():
    with pytest.raises(ValueError, match="ahead: 0 must be 1 or more"):
        prefetch(iter([]), ahead=0)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
def test_it_steps_aside_unless_told_otherwise():
    def priorities():
        yield os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    mine = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    with prefetch(priorities()) as aside, prefetch(priorities(), aside=False) as beside:
        assert next(iter(aside)) == min(mine + 10, 19)
        assert next(iter(beside)) == mine
