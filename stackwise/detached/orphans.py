"""A stop of a run that nobody looks after: one in the foreground, or one without its supervisor.

The process is interrupted as Ctrl-C does it, and never killed: it may be a notebook's kernel.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from stackwise.runs.lock import LOCK, SUPERVISOR, holds, is_held, is_here, owner_of

BETWEEN_SECONDS = 0.1


def interrupt_orphan(folder: Path) -> bool:
    """Interrupt the process that trains a run, if no supervisor does.

    A lock of a stranger's may name any process: only one that holds it is interrupted.

    Args:
        folder: The run's.

    Returns:
        Whether it was interrupted.
    """
    owner = owner_of(folder, LOCK)
    if owner is None or is_held(folder, SUPERVISOR) or not is_here(owner):
        return False
    if owner.pid == os.getpid() or not holds(owner, folder / LOCK):
        return False
    with suppress(OSError):  # it has just ended, or is somebody else's
        os.kill(owner.pid, signal.SIGINT)  # asks for a stop after the step in hand
        time.sleep(BETWEEN_SECONDS)
        if holds(owner, folder / LOCK):
            os.kill(owner.pid, signal.SIGINT)  # and for one now
        return True
    return False
