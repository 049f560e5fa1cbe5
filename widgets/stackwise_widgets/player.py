"""Things done one after the other beside the kernel's main thread, and a play button for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from stackwise_widgets.panel import Guard
from stackwise_widgets.threads import start

Job = Callable[[], None]
WAITING = 1000  # jobs at most


class Player:
    """A thread that does what it is asked, in order, and while it plays also goes on by itself.

    It lives while there is something to do. What raises is shown by the guard, and ends playing.

    Args:
        doing: What it does, in words, for the error card.
        tick: One move of what is played; False when there is no further one.
        seconds: From one move to the next.
        guard: Takes what is raised.
        changed: Called when playing begins or ends, from whichever thread that is found in.
    """

    def __init__(
        self,
        doing: str,
        tick: Callable[[], bool],
        seconds: Callable[[], float],
        guard: Guard,
        changed: Job,
    ) -> None:
        self.doing, self.tick, self.seconds = doing, tick, seconds
        self.guard, self.changed = guard, changed
        self.playing = False
        self._jobs: deque[Job] = deque()
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, job: Job, *, first: bool = False) -> None:
        """Have something done. Returns at once.

        Args:
            job: What.
            first: Forget what waits, and do this.
        """
        with self._turn:
            if self._closed or (not first and len(self._jobs) >= WAITING):
                return
            if first:
                self._jobs.clear()
            self._jobs.append(job)
            self._wake()

    def play(self) -> None:
        """Go on by itself from now on."""
        self._set(True)

    def pause(self) -> None:
        """Stand still after the move in hand."""
        self._set(False)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do, `timeout` seconds at most; whether that is so."""
        with self._turn:
            return self._turn.wait_for(lambda: self._thread is None, timeout)

    def close(self, last: Job | None = None, timeout: float = 5.0) -> bool:
        """Do nothing more after the move in hand.

        Args:
            last: What is still to be done then, and nothing after it.
            timeout: Seconds to wait for that; it is done later if that is not enough.

        Returns:
            Whether all has ended.
        """
        with self._turn:
            if not self._closed:
                self._closed, self.playing = True, False
                self._jobs.clear()
                self._jobs.extend([last] if last is not None else [])
                self._wake()
        return self._thread is not threading.current_thread() and self.settle(timeout)

    def _set(self, playing: bool) -> None:
        with self._turn:
            if self._closed or playing == self.playing:
                return
            self.playing = playing
            self._wake()
        self.changed()

    def _wake(self) -> None:
        """Under the lock: have a thread see what is new."""
        self._turn.notify_all()
        if self._thread is None:
            self._thread = start(self._run, partial(self.close, timeout=0), self.doing)

    def _run(self) -> None:
        while True:
            with self._turn:
                if not self._jobs and not self.playing:
                    self._thread = None
                    self._turn.notify_all()
                    return
                job = self._jobs.popleft() if self._jobs else self._move
            try:
                job()
            except Exception as error:
                self.guard.take(self.doing, error)
                self.pause()

    def _move(self) -> None:
        """One move of what is played, and the time until the next."""
        if not self.tick():
            self.pause()
            return
        with self._turn:
            self._turn.wait_for(lambda: bool(self._jobs) or not self.playing, self.seconds())
