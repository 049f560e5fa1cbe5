"""Being told to stop by a signal, and when that takes effect.

Ctrl-C (SIGINT), SIGTERM and a closed terminal (SIGHUP) are told alike. Where there is something to
save, the first one is only noted (`gently`) and obeyed after the step in hand. Elsewhere, and from
the second one on, it is an exception on the spot: KeyboardInterrupt, or `Terminated`. What is short
and must not be cut is finished first (`undisturbed`).

Only the main thread of a process is ever told; in any other all of this does nothing. Orders given
through a run's folder are in `runs/control.py`, the codes a process ends with in `exit_codes.py`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

HANGUP = getattr(signal, "SIGHUP", signal.SIGTERM)
UNWINDING_SECONDS = 5.0  # after an exception on the spot, in which no other one is raised


class Terminated(KeyboardInterrupt):
    """This process was told to end: by SIGTERM, or by the end of its terminal."""


@dataclass
class Told:
    """What this process was told, since it began to listen.

    Attributes:
        listens: How many blocks of `listening` it is in.
        last: The last signal; None if none came.
        gentle: What is done on the first one, while it is obeyed later.
        held: How many blocks of `undisturbed` it is in.
        waits: Whether one came in such a block.
        raised: When the last exception was raised, in monotonic seconds.
    """

    listens: int = 0
    last: int | None = None
    gentle: Callable[[], None] | None = None
    held: int = 0
    waits: bool = False
    raised: float | None = None


TOLD = Told()


def was_interrupted() -> bool:
    """Whether this process was told to stop on the spot, since it began to listen."""
    return TOLD.raised is not None


@contextmanager
def listening(*, program: bool = False) -> Iterator[None]:
    """Inside, a signal to stop is answered as above; the outermost block counts.

    Args:
        program: Whether what is inside is all of a program of ours, which turns `Terminated` into
            its exit code; SIGHUP is told then, unless it is ignored, as under nohup. Any other
            process that would have ended at SIGTERM does so still, once it has been unwound.
    """
    if threading.current_thread() is not threading.main_thread() or TOLD.listens:
        yield
        return
    signals = [signal.SIGINT, signal.SIGTERM]
    if program and signal.getsignal(HANGUP) != signal.SIG_IGN:
        signals.append(HANGUP)
    TOLD.last = TOLD.raised = None
    TOLD.listens, TOLD.waits = 1, False
    before = {each: signal.signal(each, _told) for each in signals}
    try:
        yield
    except Terminated:
        if before[signal.SIGTERM] == signal.SIG_DFL and not program:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise
    finally:
        TOLD.listens = 0
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def gently(ask: Callable[[], None]) -> Iterator[None]:
    """Inside, the first signal calls `ask` and nothing else; one that came before does so at once.

    Args:
        ask: Notes that there is a stop to obey as soon as all is saved.
    """
    if threading.current_thread() is not threading.main_thread() or not TOLD.listens:
        yield
        return
    before, TOLD.gentle = TOLD.gentle, ask
    try:
        if TOLD.last is not None:  # its exception got lost, as in a finalizer
            ask()
        yield
    finally:
        TOLD.gentle = before


@contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, signals wait; at its end one that came takes effect."""
    if threading.current_thread() is not threading.main_thread() or not TOLD.listens:
        yield
        return
    TOLD.held += 1
    try:
        yield
    finally:
        TOLD.held -= 1
    if TOLD.waits and not TOLD.held:
        TOLD.waits = False
        _obey()


def _told(signum: int, frame: Any) -> None:
    first, TOLD.last = TOLD.last is None, signum
    if TOLD.gentle is not None and first:
        TOLD.gentle()
    elif TOLD.held:
        TOLD.waits = True
    else:
        _obey()


def _obey() -> None:
    """Raise, unless what was raised a moment ago is on its way still."""
    now = time.monotonic()
    if TOLD.raised is not None and now - TOLD.raised < UNWINDING_SECONDS:
        return
    TOLD.raised = now
    raise KeyboardInterrupt if TOLD.last == signal.SIGINT else Terminated
