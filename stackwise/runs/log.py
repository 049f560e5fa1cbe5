"""log.txt: what the processes of a detached run said, theirs and the libraries' words."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from stackwise.bounded import opened

LOG = "log.txt"
LAST_BYTES = 1 << 14


def appended(folder: Path) -> FileIO:
    """The log, to write at its end.

    Raises:
        OSError: If it cannot be written, or is a link, which may lead anywhere.
    """
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    return FileIO(os.open(folder / LOG, how, 0o666), "ab")


def say(folder: Path, text: str) -> None:
    """Add a line to the run's log."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with suppress(OSError), appended(folder) as log:
        log.write(f"[{now}] {text}\n".encode())


def last_lines(folder: Path, count: int = 20) -> list[str]:
    """The end of a run's log; nothing if it has none."""
    try:
        with opened(folder / LOG) as file:
            file.seek(max(0, file.seek(0, 2) - LAST_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-count:]


def last_line(folder: Path) -> str | None:
    """The last line that says something."""
    said = [line.strip() for line in last_lines(folder) if line.strip()]
    return said[-1] if said else None
