"""A command of this user's that is called when a run ends or is restarted.

It comes from an argument, an option or STACKWISE_ALERT, never from a run's folder, which may be a
stranger's. It is started without a shell, with what happened in variables and as JSON on its input,
and has a minute; what it says goes into the run's log. Whatever comes of it changes no run's end.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any

from stackwise.errors import ExperimentError
from stackwise.jsontext import dumps
from stackwise.runs import Run, RunBusy, RunError, lock
from stackwise.runs.event_log import append_event
from stackwise.runs.log import appended, say

VARIABLE = "STACKWISE_ALERT"
LIMIT_SECONDS = 60.0
LONGEST = 2000  # letters of a variable
EVENTS = ("finished", "failed", "died", "restarted")


def alert_of(given: str | None) -> str | None:
    """The command that this user names: here, or by the environment; None for none.

    Raises:
        ExperimentError: If it is no command line.
    """
    command = os.environ.get(VARIABLE) if given is None else given
    if not command:
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ExperimentError(f"alert: {command!r} is no command line: {error}") from None
    if not words:
        raise ExperimentError(f"alert: {command!r} names no command; leave it empty for none")
    return command


def call(command: str, folder: Path, event: str, reason: str | None = None) -> str | None:
    """Call the command of a run.

    Args:
        command: Its command line.
        folder: The run's folder.
        event: One of `EVENTS`.
        reason: Why.

    Returns:
        Why it failed; None if it ended with 0.
    """
    facts = facts_of(folder, event, reason)
    try:
        with output_of(folder) as log:
            child = subprocess.Popen(
                shlex.split(command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **variables(facts)},
            )
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    try:
        with suppress(BrokenPipeError):  # it does not have to read what it is told
            child.communicate(dumps(facts).encode(), timeout=LIMIT_SECONDS)
        code = child.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"it did not end in {LIMIT_SECONDS:.0f} s and was killed"
    return None if code == 0 else f"it ended with {code}"


def output_of(folder: Path) -> FileIO:
    """Where it says what it says: the run's log, or nowhere if that cannot be written."""
    try:
        return appended(folder)
    except OSError:
        return FileIO(os.devnull, "ab")


def facts_of(folder: Path, event: str, reason: str | None) -> dict[str, Any]:
    """What is told of a run."""
    run = Run(folder)
    found = run.summary()
    return {
        "event": event,
        "run": str(folder.resolve()),
        "id": run.id,
        "name": found["name"] or None,
        "state": found["state"],
        "reason": reason,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **{key: found[key] for key in ("stage", "step", "loss", "bits_per_byte")},
    }


def variables(facts: dict[str, Any]) -> dict[str, str]:
    """The same as variables of an environment: STACKWISE_EVENT, STACKWISE_RUN, ..."""
    return {
        f"STACKWISE_{key.upper()}": str(value).replace("\0", "")[:LONGEST]
        for key, value in facts.items()
        if value is not None
    }


def tell(command: str | None, folder: Path, event: str, reason: str | None = None) -> None:
    """Call the command, if there is one; that it failed is an event of the run, and no more."""
    if command is None:
        return
    why = failure(command, folder, event, reason)
    if why is not None:
        note_failure(folder, event, why)


def failure(command: str, folder: Path, event: str, reason: str | None) -> str | None:
    """Why the command failed; None if it did not."""
    try:
        return call(command, folder, event, reason)
    except (OSError, RunError) as error:  # the folder is gone, the disk is full
        return f"{type(error).__name__}: {error}"


def note_failure(folder: Path, event: str, why: str) -> None:
    """Write down that a command failed: an event, and a line of the log."""
    say(folder, f"the alert of {event} failed: {why}")
    # Where another attempt has begun, it writes its own events.
    with suppress(OSError, RunBusy), lock.take(folder):
        append_event(folder, "alert_failed", about=event, why=why)


@contextmanager
def alerting(run: Run, given: str | None) -> Iterator[None]:
    """Inside, a run is trained in this process; how it ended is told, unless it was stopped.

    Raises:
        ExperimentError: If what is given is no command line.
    """
    command = alert_of(given)
    before = run.state
    try:
        yield
    except RunBusy:
        raise
    except Exception as error:
        tell(command, run.path, "failed", f"{type(error).__name__}: {error}")
        raise
    if run.state == "finished" != before:
        tell(command, run.path, "finished")
