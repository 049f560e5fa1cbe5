"""A folder for scratch runs that is gone at the end, however that comes.

It is held by the lock of a run, so that one that a killed doctor left is known, and removed by the
next.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stackwise.runs import lock

PREFIX = ".doctor-"
ENDS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A folder of its own in `home`, gone at the end; so is `home`, if it was not there.

    Raises:
        OSError: If it cannot be made.
    """
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    home.mkdir(parents=True, exist_ok=True)
    sweep(home)
    with ends_cleanly():
        place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=home)).resolve()
        try:
            with lock.take(place):
                yield place
        finally:
            with uninterrupted():
                shutil.rmtree(place, ignore_errors=True)
                for folder in missing:
                    with suppress(OSError):  # others use it by now
                        folder.rmdir()


def sweep(home: Path) -> None:
    """Remove what killed doctors left."""
    for place in home.glob(f"{PREFIX}*"):
        if lock.owner_of(place) is not None and not lock.is_held(place):
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def ends_cleanly() -> Iterator[None]:
    """Raise KeyboardInterrupt where this process would be ended at once, so that all is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in ENDS}
    for number in ENDS:
        if before[number] != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number in ENDS:
            signal.signal(number, before[number])


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let signals wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDS})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
