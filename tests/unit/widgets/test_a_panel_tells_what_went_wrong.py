"""What a handler raises is shown in a card and kept; nothing else stops working."""

from __future__ import annotations

import threading

import pytest

import stackwise as sw
from stackwise_widgets.panel import Guard


def test_it_is_shown_and_kept() -> None:
    guard = Guard()

    def fails(change: object) -> None:
        raise sw.ExperimentError("optim.lr: 'x' is not a number\nseed: 1 <b>")

    guard("launching the run", fails)({})
    (error,) = guard.errors
    assert str(error).startswith("launching the run: optim.lr: 'x' is not a number")
    assert "<li>seed: 1 &lt;b&gt;</li>" in guard.card.value
    assert 'role="alert"' in guard.card.value
    assert "Traceback" in error.trace
    guard.clear()
    assert guard.card.value == "" and guard.errors == [error]


def test_what_nobody_expects_is_named_by_its_kind() -> None:
    guard = Guard()
    guard("drawing", lambda: {}["missing"])()
    assert "drawing (KeyError)" in guard.card.value


def test_a_stop_of_the_kernel_is_none_of_its_business() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guard()("drawing", interrupted)()


def test_handlers_run_one_at_a_time_and_may_call_each_other() -> None:
    guard, inside, most = Guard(), 0, 0

    def work() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        guard("within", lambda: None)()
        inside -= 1

    handler = guard("counting", work)
    threads = [threading.Thread(target=lambda: [handler() for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside, guard.errors) == (1, 0, [])
