"""What is asked of a run by other processes: numbered files in its folder `control/`.

    control/0003.json      {"command": "pause", "time": 1767268800.0, "pid": 4711}

Any reader of the folder may ask; the process that trains looks after every step, does what it finds
in order, and says in status.json which number it came to (`obeyed`). Nothing is ever changed in
`control/`, so that it tells afterwards who asked for what.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from stackwise.atomic import numbers_in, write_next
from stackwise.bounded import read_text
from stackwise.jsontext import dumps, loads

Command = Literal["pause", "resume", "stop", "stop-now"]
COMMANDS: tuple[str, ...] = get_args(Command)
FOLDER, DIGITS = "control", 4


@dataclass(frozen=True)
class Order:
    """One thing that was asked for.

    Attributes:
        number: Its place in the order of asking: 1, 2, ...
        command: `pause`, `resume`, `stop` (after the step in hand, saved) or `stop-now`.
        time: When, in seconds since 1970.
        patience: Seconds after which a `stop` that was not obeyed becomes a `stop-now`; None: by
            the length of the run's steps.
    """

    number: int
    command: str
    time: float
    patience: float | None = None


def ask(run: Path, command: Command, *, patience: float | None = None) -> Order:
    """Ask something of a run.

    Args:
        run: Its folder.
        command: What.
        patience: As in `Order`.

    Returns:
        What was written.

    Raises:
        ValueError: If there is no such command.
        OSError: If the folder cannot be written.
    """
    if command not in COMMANDS:
        raise ValueError(f"command: {command!r} is not one of {', '.join(COMMANDS)}")
    if (run / FOLDER).is_symlink():
        raise OSError(errno.ELOOP, "is a link, which leads out of the run's folder", FOLDER)
    now = time.time()
    facts = {"command": command, "time": now, "pid": os.getpid(), "patience": patience}
    path = write_next(run / FOLDER, dumps(facts), DIGITS)
    return Order(int(path.stem), command, now, patience)


def is_stopping(run: Path, status: Mapping[str, Any]) -> bool:
    """Whether the attempt that is live was asked to end.

    Args:
        run: The run's folder.
        status: What its status.json says: `heard` is the last order that was for an earlier one.
    """
    heard = status.get("heard")
    after = heard if isinstance(heard, int) else newest(run)
    return stop_asked(run, after)


def stop_asked(run: Path, after: int) -> bool:
    """Whether a stop, of either kind, is among the orders with higher numbers than `after`."""
    return any(order.command.startswith("stop") for order in orders(run, after))


def newest(run: Path) -> int:
    """The number of the last order; 0 before the first."""
    return max(numbers_in(run / FOLDER), default=0)


def orders(run: Path, after: int = 0) -> list[Order]:
    """The orders with higher numbers than `after`, in order; one that cannot be read is left out.

    Args:
        run: The run's folder.
        after: The number of the last one that is known.
    """
    found = [_read(run, number) for number in sorted(numbers_in(run / FOLDER)) if number > after]
    return [order for order in found if order is not None]


def _read(run: Path, number: int) -> Order | None:
    try:
        facts = loads(read_text(run / FOLDER / f"{number:0{DIGITS}d}.json", 1 << 16))
        patience = facts.get("patience")
        return Order(
            number=number,
            command=_command(facts),
            time=float(facts["time"]),
            patience=None if patience is None else float(patience),
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _command(facts: Mapping[str, Any]) -> str:
    command = facts["command"]
    if command not in COMMANDS:
        raise ValueError(command)
    return str(command)
