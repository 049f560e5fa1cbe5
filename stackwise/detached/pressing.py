"""Seeing to it that a stop is obeyed: an interrupt when its time is over, then a kill.

How long a stop may take is in `patience.py`; the orders themselves are in `runs/control.py`.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

from stackwise.runs.control import Order

GRACE_SECONDS = 8.0  # between an interrupt that is not answered and a kill


class Ending:
    """A stop, from the asking to the kill.

    Args:
        trainer: The process.
        say: Where to say what is done.

    Attributes:
        began: When it was interrupted; None before.
        is_asked: Whether a stop was asked for, of either kind.
    """

    def __init__(self, trainer: subprocess.Popen[str], say: Callable[[str], None]) -> None:
        self.trainer, self.say = trainer, say
        self.deadline: float | None = None
        self.began: float | None = None
        self.killed = self.now = self.is_asked = False

    def hear(self, order: Order, patience: float) -> None:
        """Take an order into account: a stop must be obeyed in `patience` seconds."""
        self.is_asked = self.is_asked or order.command.startswith("stop")
        if order.command == "stop-now":
            self.deadline, self.now = time.monotonic(), True
        elif order.command == "stop":
            due = time.monotonic() + patience
            self.deadline = due if self.deadline is None else min(self.deadline, due)

    @property
    def is_pressing(self) -> bool:
        """Whether it has a deadline and is not interrupted yet."""
        return self.deadline is not None and self.began is None

    def relent(self) -> None:
        """Give all the time that it needs to a stop that is being obeyed; a stop now stays one."""
        if not self.now:
            self.deadline = None

    def press(self) -> None:
        """Do what is due: interrupt, then kill."""
        now = time.monotonic()
        if self.deadline is None or now < self.deadline or self.killed:
            return
        if self.began is None:
            self.began = now
            self.say("it is interrupted, and goes on from its last checkpoint")
            self._interrupt()
        elif now - self.began > GRACE_SECONDS:
            self.killed = True
            self.say(f"it did not answer for {GRACE_SECONDS:.0f} s and is killed")
            self.trainer.kill()

    def _interrupt(self) -> None:
        """Twice: the first asks for a stop after the step in hand, the second for one now."""
        for _ in range(2):
            with suppress(OSError):
                self.trainer.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.trainer.wait(0.1)
