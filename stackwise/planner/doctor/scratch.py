"""A folder for scratch runs that is gone at the end, however that comes.

What a killed doctor left is removed by the next, as every draft is (`drafts.py`).
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stackwise.drafts import drafted

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
    with ends_cleanly(), drafted(home, PREFIX) as place:
        try:
            yield place.resolve()
        finally:
            with uninterrupted():
                shutil.rmtree(place, ignore_errors=True)
                for folder in missing:
                    with suppress(OSError):  # others use it by now
                        folder.rmdir()


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
