"""A process kept ready: a supervisor with its trainer, which has imported all that takes long.

Whoever means to launch a run soon calls `warm`; the first launch takes the pair that it started. It
ends with the process that started it, since its input does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import stackwise

ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}  # read as torch is imported
_ready: list[subprocess.Popen[str]] = []
_started: list[subprocess.Popen[str]] = []  # kept, so that none is a corpse nobody asks after
_guard = threading.Lock()


def warm() -> None:
    """Keep a process ready for the next launch, unless one is; returns at once."""
    with _guard:
        if not any(pair.poll() is None for pair in _ready):
            _ready[:] = [start_supervisor("--warm")]


def take_warm() -> subprocess.Popen[str] | None:
    """The process that is ready, which is nobody else's from here on; None if none is."""
    with _guard:
        while _ready:
            pair = _ready.pop()
            if pair.poll() is None:
                return pair
    return None


def start_supervisor(*options: str, asleep: bool = False) -> subprocess.Popen[str]:
    """A supervisor that waits for its job, in a session of its own.

    Args:
        options: Of its command line.
        asleep: Whether threads that wait for one another let go of their cores, for processes that
            have more threads together than there are cores: it changes no number.
    """
    _started[:] = [child for child in _started if child.poll() is None]
    home = str(Path(stackwise.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "stackwise.detached.supervisor", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(ASLEEP if asleep else {})},
    )
    _started.append(child)
    return child
