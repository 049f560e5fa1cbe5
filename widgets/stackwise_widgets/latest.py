"""Slow work beside the kernel's main thread, of which only the newest request is shown.

A handler asks and returns at once. What was asked before and has not begun is dropped, and what a
request that is no longer the newest has found is not shown. Traits that are set from the thread
reach the page live. What is raised goes to the panel's card.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from stackwise_widgets.panel import Guard
from stackwise_widgets.threads import start


class _Asked(NamedTuple):
    doing: str
    work: Callable[[], Any]
    show: Callable[[Any], Any]
    failed: Callable[[], Any]


class Latest:
    """One thread at most, and at most one request that waits for it.

    Args:
        guard: Of the panel.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._lock = threading.Lock()
        self._wanted: _Asked | None = None
        self._thread: threading.Thread | None = None

    def ask(
        self,
        doing: str,
        work: Callable[[], Any],
        show: Callable[[Any], Any] = lambda found: None,
        failed: Callable[[], Any] = lambda: None,
    ) -> None:
        """Do some work in the thread, then show what it found.

        Args:
            doing: In words, for the card: "reading the runs".
            work: Sets no trait, unless it asks whether it `is_overtaken` before.
            show: Takes what `work` gave.
            failed: Called where it raised, after the card shows it.
        """
        with self._lock:
            self._wanted = _Asked(doing, work, show, failed)
            if self._thread is None:
                self._thread = start(self._run, self.drop, doing)

    def drop(self) -> None:
        """Forget what is asked and has not begun."""
        with self._lock:
            self._wanted = None

    def is_overtaken(self) -> bool:
        """Whether something newer is asked, so that what is in hand is for nothing."""
        with self._lock:
            return self._wanted is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Until nothing is asked any more. Not from a handler: what is shown waits for those.

        Returns:
            Whether that is so.
        """
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _next(self) -> _Asked | None:
        with self._lock:
            asked, self._wanted = self._wanted, None
            if asked is None:
                self._thread = None
        return asked

    def _run(self) -> None:
        while (asked := self._next()) is not None:
            try:
                found = asked.work()
            except Exception as error:
                self._guard.take(asked.doing, error)
                self._guard(asked.doing, asked.failed)()
                continue
            with self._lock:
                newest = self._wanted is None
            if newest:
                self._guard(asked.doing, asked.show)(found)
