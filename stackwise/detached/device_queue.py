"""Whose turn it is on a device: one run after the other, in the order in which they came.

Every process that trains on a device of this machine leaves a ticket in a folder of the user's: a
numbered file that names its run and itself. The lowest number whose process lives has the device; a
detached run waits until that is its own. Tickets of the dead are removed by whoever looks.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stackwise.atomic import numbers_in, write_next, write_text
from stackwise.data.cache import cache_folder
from stackwise.jsontext import dumps, loads
from stackwise.runs.lock import Owner, is_alive, process_called, this_process

DIGITS = 9


@dataclass(frozen=True)
class Ticket:
    """A place in the queue of a device.

    Attributes:
        path: Its file.
        run: The run's folder.
        owner: The process that holds it.
    """

    path: Path
    run: str
    owner: Owner

    @property
    def number(self) -> int:
        """Its place in the order of coming."""
        return int(self.path.stem)


def take_ticket(device: str, run: Path) -> Ticket:
    """Come to the end of a device's queue.

    Args:
        device: `cpu`, or the name of a card.
        run: The run's folder.

    Raises:
        OSError: If the folder of tickets cannot be written.
    """
    owner, run = this_process(), run.resolve()
    text = dumps({"run": str(run), "owner": asdict(owner)})
    return Ticket(write_next(folder_of(device), text, DIGITS), str(run), owner)


def before(ticket: Ticket) -> list[Ticket]:
    """The tickets whose turn is before this one's, the first one first."""
    return [other for other in tickets(ticket.path.parent) if other.number < ticket.number]


def tickets(folder: Path) -> list[Ticket]:
    """All tickets of living processes in the folder of a device."""
    found = []
    for number in sorted(numbers_in(folder)):
        path = folder / f"{number:0{DIGITS}d}.json"
        ticket = _read(path)
        if ticket is not None and is_alive(ticket.owner):
            found.append(ticket)
        elif ticket is not None or _is_old(path):
            path.unlink(missing_ok=True)
    return found


def hand_on(ticket: Ticket, pid: int) -> None:
    """Let another process hold a ticket from here on: it lives as long as that does."""
    owner = process_called(pid)
    write_text(ticket.path, dumps({"run": ticket.run, "owner": asdict(owner)}), durable=False)


def give_back(ticket: Ticket) -> None:
    """Leave the queue, or the device."""
    with suppress(OSError):
        ticket.path.unlink(missing_ok=True)


@contextmanager
def holding(device: str, run: Path) -> Iterator[list[Ticket]]:
    """Inside, launched runs wait for this one; it does not wait itself.

    Yields:
        Those that are before it.
    """
    try:
        ticket = take_ticket(device, run)
    except OSError:  # a home that cannot be written: nobody queues there
        yield []
        return
    try:
        yield before(ticket)
    finally:
        give_back(ticket)


def folder_of(device: str) -> Path:
    """Where the tickets of a device lie: apart for each boot, process space and choice of cards."""
    here = this_process()
    cards = "" if device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "")
    key = hashlib.sha256("\n".join([here.boot, here.space, device, cards]).encode()).hexdigest()
    return cache_folder() / "queue" / key[:16]


def _is_old(path: Path) -> bool:
    """Whether a ticket that cannot be read is not just being written."""
    try:
        return time.time() - path.stat().st_mtime > 5.0
    except OSError:
        return False


def _read(path: Path) -> Ticket | None:
    try:
        facts = loads(path.read_text("utf-8"))
        return Ticket(path, str(facts["run"]), Owner(**facts["owner"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
