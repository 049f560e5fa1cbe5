"""Threads of panels, which end before Python does.

A daemon thread that is in compiled code as Python ends aborts the process. So each thread is told
to stop then, and waited for: a kernel that restarts is killed after five seconds.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

PATIENCE = 4.0

_started: WeakKeyDictionary[threading.Thread, Callable[[], object]] = WeakKeyDictionary()


def start(target: Callable[[], object], stop: Callable[[], object], name: str) -> threading.Thread:
    """Start a thread.

    Args:
        target: What it does.
        stop: Has it do no more after what is in hand; returns at once.
        name: Of the thread.
    """
    thread = threading.Thread(target=target, daemon=True, name=f"stackwise {name}")
    _started[thread] = stop
    thread.start()
    return thread


@atexit.register
def _end() -> None:
    going = [(thread, stop) for thread, stop in list(_started.items()) if thread.is_alive()]
    for _, stop in going:
        stop()
    until = time.monotonic() + PATIENCE
    for thread, _ in going:
        thread.join(max(until - time.monotonic(), 0))
