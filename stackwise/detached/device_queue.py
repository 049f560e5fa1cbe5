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
from stackwise.stopping import undisturbed

DIGITS = 9


@dataclass(frozen=True)
class Ticket:
    """A place in the queue of a device.

    Attributes:
        path: Its file.
        run: The run's folder.
        owners: The processes that hold it: while one of them lives it counts.
    """

    path: Path
    run: str
    owners: tuple[Owner, ...]

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
    owners, run = (this_process(),), run.resolve()
    return Ticket(write_next(folder_of(device), _text(str(run), owners), DIGITS), str(run), owners)


def before(ticket: Ticket) -> list[Ticket]:
    """The tickets whose turn is before this one's, the first one first."""
    return [other for other in tickets(ticket.path.parent) if other.number < ticket.number]


def tickets(folder: Path) -> list[Ticket]:
    """All tickets of living processes in the folder of a device."""
    found = []
    for number in sorted(numbers_in(folder)):
        path = folder / f"{number:0{DIGITS}d}.json"
        ticket = _read(path)
        if ticket is not None and any(map(is_alive, ticket.owners)):
            found.append(ticket)
        elif ticket is not None or _is_old(path):
            path.unlink(missing_ok=True)
    return found


def share(ticket: Ticket, pid: int) -> None:
    """Let another process hold a ticket, too: it counts as long as one of both is there."""
    owners = (*ticket.owners, process_called(pid))
    write_text(ticket.path, _text(ticket.run, owners), durable=False)


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
    ticket = None
    try:
        with undisturbed(), suppress(OSError):  # a home that cannot be written: nobody queues there
            ticket = take_ticket(device, run)
        yield [] if ticket is None else before(ticket)
    finally:
        if ticket is not None:
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


def _text(run: str, owners: tuple[Owner, ...]) -> str:
    return dumps({"run": run, "owners": [asdict(owner) for owner in owners]})


def _read(path: Path) -> Ticket | None:
    try:
        facts = loads(path.read_text("utf-8"))
        owners = tuple(Owner(**owner) for owner in facts["owners"])
        return Ticket(path, str(facts["run"]), owners)
    except (OSError, ValueError, LookupError, TypeError):
        return None
