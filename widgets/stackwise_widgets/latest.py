"""Slow work beside the kernel's main thread: the newest request counts, others are dropped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from stackwise_widgets.panel import Guard

T = TypeVar("T")


class Latest(Generic[T]):
    """A thread that works while there is something to work out, and ends when there is not.

    Args:
        doing: What it does, in words, for the error card.
        work: Is given a request, and shows what comes of it; its widgets are told from the thread.
        guard: Takes what it raises.
    """

    def __init__(self, doing: str, work: Callable[[T], None], guard: Guard) -> None:
        self.doing, self.work, self.guard = doing, work, guard
        self._wanted: list[T] = []
        self._lock = threading.Condition()
        self._busy = False

    def ask(self, request: T) -> None:
        """Have a request worked out; one that waits is dropped for it. Returns at once."""
        with self._lock:
            self._wanted = [request]
            if self._busy:
                return
            self._busy = True
        threading.Thread(target=self._run, name=f"stackwise {self.doing}", daemon=True).start()

    def is_overtaken(self) -> bool:
        """Whether a newer request waits, so that what is in hand is for nothing."""
        with self._lock:
            return bool(self._wanted)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to work out, `timeout` seconds at most; whether that is so."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._busy, timeout)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._busy = False
                    self._lock.notify_all()
                    return
                request = self._wanted.pop()
            try:
                self.work(request)
            except Exception as error:
                self.guard.take(self.doing, error)
