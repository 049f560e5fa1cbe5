"""Who trains a run now: an advisory lock that the kernel drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO


class RunBusy(RuntimeError):
    """Another process is training this run."""


def take(folder: Path) -> IO[str]:
    """Hold the run until the returned file is closed, or this process ends.

    Raises:
        RunBusy: If another process holds it.
    """
    file = (folder / "lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise RunBusy(
            f"run {folder.name}: process {owner} is training it; watch it, or stop it first"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def is_held(folder: Path) -> bool:
    """Whether a live process holds the run."""
    path = folder / "lock"
    if not path.exists():
        return False
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
