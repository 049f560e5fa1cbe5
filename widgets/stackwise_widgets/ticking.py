"""A thread that calls a function a few times a second while there is more to come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from stackwise_widgets.panel import Guard
from stackwise_widgets.threads import start

TICK_SECONDS = 0.5


class Ticking:
    """Calls `tick` again and again until it returns False.

    Args:
        doing: What it does, in words, for the error card.
        tick: The function; what it raises ends the ticking and is shown.
        guard: Takes what it raises.
        seconds: Between two calls.
    """

    def __init__(
        self, doing: str, tick: Callable[[], bool], guard: Guard, seconds: float = TICK_SECONDS
    ) -> None:
        self.doing, self.tick, self.guard, self.seconds = doing, tick, guard, seconds
        self._stopping: threading.Event | None = None

    @property
    def is_going(self) -> bool:
        """Whether it calls."""
        return self._stopping is not None and not self._stopping.is_set()

    def start(self) -> None:
        """Call from now on; if it does already, that goes on."""
        if not self.is_going:
            self._stopping = stopping = threading.Event()
            start(partial(self._run, stopping), stopping.set, self.doing)

    def stop(self) -> None:
        """Call no more; a call in hand ends by itself."""
        if self._stopping is not None:
            self._stopping.set()

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set() and self.tick():
                stopping.wait(self.seconds)
        except Exception as error:
            self.guard.take(self.doing, error)
        finally:
            stopping.set()
