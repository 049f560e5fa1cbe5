"""A sign of life of this process: a number that rises with each piece of its work.

Whoever trains, looks, fills a cache, saves or reads a checkpoint beats now and then; status.json
says the number with each heartbeat, so that a process that works is told from one that hangs
(`detached/watchdog.py`).
"""

from __future__ import annotations

_beats = [0]


def beat() -> None:
    """One more piece of work is done."""
    _beats[0] += 1


def beats() -> int:
    """How many there were in this process."""
    return _beats[0]
