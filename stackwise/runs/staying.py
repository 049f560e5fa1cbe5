"""Whether a run still lies where it is written to, while it is trained.

A folder may be moved, removed or replaced under the process that writes into it. What goes on
writing then makes half a run where none is any more, or writes into another process's. So the one
that trains looks every second, and before each checkpoint. Its own open files come back.
"""

from __future__ import annotations

import os
import threading
from io import FileIO
from pathlib import Path
from typing import Protocol

from stackwise.atomic import is_named, named_again
from stackwise.runs import lock
from stackwise.runs.damage import DamagedRun
from stackwise.runs.lock import RunBusy


class Moved(DamagedRun):
    """A run's folder is not where it was when its training began."""


class Log(Protocol):
    """A file that is written to all the time, by several threads."""

    path: Path
    file: FileIO
    guard: threading.Lock


def put_back(log: Log) -> bool:
    """Put a file back if it was removed or replaced; whether that was needed.

    Raises:
        OSError: If it cannot be written.
    """
    with log.guard:
        if is_named(log.file.fileno(), log.path):
            return False
        log.file = named_again(log.file, log.path)
        return True


class Stay:
    """What one process knows of the folder that it trains in.

    Args:
        folder: The run's.
        held: Its lock.

    Attributes:
        lost: Why it may not write there any more; None while it may.
    """

    def __init__(self, folder: Path, held: lock.Lock) -> None:
        self.folder, self.held = folder, held
        self.place = os.stat(folder)
        self.lost: Moved | RunBusy | None = None
        self.guard = threading.Lock()

    def look(self, *logs: Log) -> list[str]:
        """Make sure that it may go on.

        Args:
            logs: Files that have to be there.

        Returns:
            What was put back: names in the folder.

        Raises:
            Moved: If the folder is gone, or another one by now.
            RunBusy: If its lock was removed, and another process has it.
            OSError: If that cannot be told, or not be put back.
        """
        with self.guard:
            self.check()
            try:
                self._look()
                ours = is_named(self.held.handle, self.folder / lock.LOCK)
                found = [] if ours else [self._take_again()]
            except (Moved, RunBusy) as error:
                self.lost = error
                raise
            return found + [str(log.path.relative_to(self.folder)) for log in logs if put_back(log)]

    def check(self) -> None:
        """Raise what the last look found, if it may not write any more."""
        if self.lost is not None:
            raise self.lost

    def _look(self) -> None:
        try:
            there = os.path.samestat(self.place, os.stat(self.folder))
        except (FileNotFoundError, NotADirectoryError):
            there = False
        if not there:
            raise Moved(
                f"run {self.folder.name}: its folder was moved, removed or replaced while it "
                "trained; resume it where it lies now, from its last checkpoint, or put it back"
            )

    def _take_again(self) -> str:
        held = lock.take(self.folder)
        self.held.release()
        self.held = held
        return lock.LOCK
