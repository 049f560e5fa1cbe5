"""status.json: how a run stands, replaced as a whole each time.

The process that trains writes it through `writer.py`; before and after that, the one that
supervises it does. What the states mean is said in `folder.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stackwise.atomic import write_text
from stackwise.jsontext import dumps, read_mapping
from stackwise.runs.heartbeat import now_facts
from stackwise.runs.lock import boot

STATUS = "status.json"
WORKED = "worked_seconds"  # in it: how long a run has been at work, where its budget is a time


def read(folder: Path) -> dict[str, Any]:
    """What it says; nothing if it is not there or cannot be read."""
    return read_mapping(folder / STATUS)


def begin(folder: Path, state: str, **facts: Any) -> None:
    """Say that a run is in a state in which nothing of it trains; its numbers so far stay.

    Args:
        folder: The run's.
        state: `starting`, `queued` or `stopped`.
        facts: What else is said, until the state changes again.
    """
    found = {key: value for key, value in read(folder).items() if key not in ("waits_for", "state")}
    write(folder, {**found, **facts, "state": state, **now_facts(boot()), "pid": os.getpid()})


def write(folder: Path, facts: dict[str, Any]) -> None:
    """Replace it."""
    write_text(folder / STATUS, dumps(facts, indent=1), durable=False)
