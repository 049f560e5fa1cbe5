"""Batches made by no, one or several threads: the same in the same order, and no thread left."""

from __future__ import annotations

import threading

import pytest

import stackwise as sw
from stackwise.data.workers import made_in_order, most_held
from stackwise.memory.bytes import plan_rows
from stackwise.memory.parts import MAKING_BYTES, TOKEN_BYTES, batches_ahead

WORKERS = [0, 1, 2, 3, 16]


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("stackwise")}


@pytest.mark.parametrize("workers", WORKERS)
def test_items_come_in_order_and_all_of_them(workers) -> None:
    with made_in_order(lambda number: number * number, range(5, 50), workers) as items:
        assert list(items) == [number * number for number in range(5, 50)]
    with made_in_order(lambda number: number, range(0), workers) as items:
        assert list(items) == []
    assert not threads()


@pytest.mark.parametrize("workers", WORKERS)
def test_an_error_arrives_at_its_item(workers) -> None:
    def make(number: int) -> int:
        if number == 7:
            raise ZeroDivisionError("at the seventh")
        return number

    seen = []
    with (
        pytest.raises(ZeroDivisionError, match="at the seventh"),
        made_in_order(make, range(20), workers) as items,
    ):
        seen.extend(iter(items))
    assert not threads()
    with made_in_order(make, range(20), workers) as items:
        assert [next(items) for _ in range(7)] == list(range(7))
    assert not threads()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_no_more_are_held_than_the_ledger_counts(workers) -> None:
    """Beside the one in hand: those ready, and those being made, all of which are begun."""
    begun: list[int] = []
    enough = threading.Semaphore(0)

    def make(number: int) -> int:
        begun.append(number)
        enough.release()
        return number

    with made_in_order(make, range(200), workers) as items:
        assert next(items) == 0
        for _ in range(most_held(workers)):
            assert enough.acquire(timeout=30)
        assert not enough.acquire(timeout=0.2), "another one was begun"
    assert len(begun) == most_held(workers)


@pytest.mark.parametrize("workers", [2, 3])
def test_that_many_make_batches_at_once(workers) -> None:
    """Each waits for the others: with one fewer none would come on."""
    together = threading.Barrier(workers, timeout=30)

    def make(number: int) -> int:
        together.wait()
        return number

    with made_in_order(make, range(4 * workers), workers) as items:
        assert list(items) == list(range(4 * workers))


def test_the_ledger_counts_what_is_ahead() -> None:
    exp = sw.Experiment.preset("toy")
    tokens = exp.optim.batch * exp.data.seq_len
    held = {0: (2, 1), 1: (4, 1), 2: (5, 2), 16: (33, 16)}
    for workers, (batches, making) in held.items():
        place = sw.Placement(device="cpu", data_workers=workers)
        bytes_each = batches * TOKEN_BYTES + making * MAKING_BYTES
        assert batches_ahead(exp, place) == tokens * bytes_each
    one, many = (
        plan_rows(exp, sw.Placement(device="cpu", data_workers=n), sw.stages(exp)) for n in (1, 16)
    )
    assert many[0]["peak_bytes"] > one[0]["peak_bytes"]
