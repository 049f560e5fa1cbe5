"""status.json and exit.json: how a run stands and how it ended, replaced as a whole each time.

The process that trains writes it through `writer.py`; before and after that, the one that
supervises it does. What the states mean is said in `standing.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.jsontext import dumps
from stackwise.runs.heartbeat import now_facts
from stackwise.runs.lock import boot
from stackwise.seals import read_sealed, sealed

STATUS, EXIT = "status.json", "exit.json"
WORKED = "worked_seconds"  # in it: how long a run has been at work, where its budget is a time


def read(folder: Path, name: str = STATUS) -> dict[str, Any]:
    """What it says, or what exit.json does; nothing if it is not there or damaged."""
    return read_sealed(folder / name)


def begin(folder: Path, state: str, **facts: Any) -> None:
    """Say that a run is in a state in which nothing of it trains; its numbers so far stay.

    Args:
        folder: The run's.
        state: `starting`, `queued` or `stopped`.
        facts: What else is said, until the state changes again.
    """
    found = {key: value for key, value in read(folder).items() if key not in ("waits_for", "state")}
    said = {**found, **facts, "state": state, **now_facts(boot()), "pid": os.getpid()}
    write(folder, said, last=state == "stopped")


def write(folder: Path, facts: dict[str, Any], *, last: bool = False) -> None:
    """Replace it; the `last` word of an attempt outlives a power cut."""
    write_text(folder / STATUS, dumps(sealed(facts), indent=1), durable=last)


def write_exit(folder: Path, facts: dict[str, Any]) -> None:
    """Replace exit.json: how an attempt ended."""
    write_text(folder / EXIT, dumps(sealed(facts), indent=1))
