"""What is handed to the process that supervises a run, and by that to the one that trains it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stackwise.jsontext import dumps, loads

TAKEN, BUSY = "taken", "busy"  # what the supervisor answers


@dataclass(frozen=True)
class Job:
    """One attempt at a run, as a line of JSON.

    Attributes:
        run: The run's folder, absolute.
        device: Whose queue it joins.
        queue: Whether it waits for its turn there.
        obeyed: The number of the last order that was for an earlier attempt.
        follows: Whether an attempt is live that this one goes on after.
        through: The stage after which it stops; None for the last one.
        placement: Another placement from here on, its folders seen from the run's; None for the one
            that is there.
        mirror: The address that each checkpoint is copied to; empty for none.
        alert: The command that is called when it ends or is restarted; None for none.
        watchdog: The fields of `Watchdog`; None for none.
        trusted: Hashes of the files of code that this user gave or trusts; the trainer imports no
            others of the run's.
    """

    run: str
    device: str
    queue: bool = True
    obeyed: int = 0
    follows: bool = False
    through: int | None = None
    placement: dict[str, Any] | None = None
    mirror: str = ""
    alert: str | None = None
    watchdog: dict[str, Any] | None = None
    trusted: tuple[str, ...] = ()

    def line(self) -> str:
        """As it goes through a pipe."""
        return dumps(asdict(self)) + "\n"

    @classmethod
    def of_line(cls, line: str) -> Job:
        """What `line` wrote.

        Raises:
            ValueError, TypeError: If it is not that.
        """
        return cls(**loads(line))
