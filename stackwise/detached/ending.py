"""How a detached run ended, written down by the process that saw it end.

A run that ends by itself has said how, in status.json and exit.json; here the exit code is added.
For one that could not, both are written.
"""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path

from stackwise.exit_codes import is_stop, of_process
from stackwise.runs import status
from stackwise.runs.lock import LOCK, is_held
from stackwise.runs.log import last_line
from stackwise.runs.standing import LIVE


def write_end(folder: Path, code: int, asked: bool) -> None:
    """Add to a run how its process ended.

    Args:
        folder: The run's.
        code: Its exit code; of a killed one, minus the signal. Of one that a signal to stop ended
            before it could listen, that of a stop is written down.
        asked: Whether it was made to stop.
    """
    if is_held(folder, LOCK):
        return  # another process trains it by now, and says itself how it ends
    if status.read(folder).get("state") in LIVE:
        write_last(folder, *verdict(folder, code, asked))
    found = status.read(folder, status.EXIT)
    status.write_exit(folder, {**found, "code": of_process(code)})


def write_last(folder: Path, state: str, why: str | None, **more: int) -> None:
    """Say in status.json and exit.json how a run ended that could not say it itself."""
    facts = status.read(folder)
    status.write(folder, {**facts, "state": state}, last=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"state": state, "error": why, "attempt": facts.get("attempt"), "time": now, **more}
    status.write_exit(folder, found)


def verdict(folder: Path, code: int, asked: bool) -> tuple[str, str | None]:
    """The state of a run whose process ended without a word, and why."""
    if asked or is_stop(code):
        return "stopped", None
    if code < 0:
        return "died", ended_by(code)
    return "failed", last_line(folder) or f"its process ended with code {code} before it began"


def ended_by(code: int) -> str:
    """Which signal ended a process, by its negative number."""
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    more = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{more}"
