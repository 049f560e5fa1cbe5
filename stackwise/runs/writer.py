"""The writing side of a run folder, held by the process that trains.

What it writes is read by `folder.py`, from any process, while it runs and after.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stackwise.atomic import flush, sweep
from stackwise.pulse import beats
from stackwise.runs import lock, status
from stackwise.runs.damage import RunError
from stackwise.runs.event_log import EventLog
from stackwise.runs.heartbeat import now_facts
from stackwise.runs.lock import RunBusy
from stackwise.runs.metrics import COLUMNS, MetricLog, compact, segments
from stackwise.runs.staying import Moved, Stay
from stackwise.stopping import undisturbed

HEARTBEAT_SECONDS = 1.0

__all__ = ["RunBusy", "RunWriter"]


class RunWriter:
    """Writes events, metrics and status. Use as a context: an exception marks the run failed.

    A thread renews the status and writes the metrics in hand every second, since one step may
    last minutes.

    Args:
        folder: The run's.
        columns: What a row of metrics may hold.
        worked: Says with each heartbeat how long the run has been at work; None: nothing is said.
        held: Its lock, if this process has it already; it is let go of at the end all the same.

    Raises:
        RunBusy: If another process is training the run.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str] = COLUMNS,
        *,
        worked: Callable[[], float] | None = None,
        held: lock.Lock | None = None,
    ) -> None:
        self.folder, self.worked = folder, worked
        self.facts: dict[str, Any] = {}
        self.state = "running"
        self.guard = threading.Lock()
        self.closing = threading.Event()
        self.pulse = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.lock = held
        try:
            with undisturbed():
                self.lock = held or lock.take(folder)
            sweep(folder)
            before = segments(folder)
            if before:  # else it is all that there is
                (folder / "metrics.parquet").unlink(missing_ok=True)
            self.stay = Stay(folder, self.lock)
            self.attempt = 1 + max((int(path.stem) for path in before), default=0)
            self.events = EventLog(folder / "events.jsonl", self.attempt)
            self.metrics = MetricLog(folder / "metrics" / f"{self.attempt:04d}.arrows", columns)
            self.settle()
            for home in (folder / "metrics", folder):  # their names, and the attempt's number
                flush(home)
        except BaseException:
            if self.lock is not None:
                self.lock.release()
            raise

    def __enter__(self) -> Self:
        assert self.lock is not None
        stale = self.lock.stale
        try:
            with undisturbed():
                if stale is not None:
                    self.event("lock_taken_over", pid=stale.pid, why="its process died")
                if damaged := self.events.damaged:
                    why = "they were not what was written, as after a power cut"
                    self.event("lines_cut", count=damaged, why=why)
                self._write_status()
                self.pulse.start()
        except BaseException as error:  # nobody leaves what could not be entered
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.closing.is_set():
            return
        if error is None:
            self.close("finished")
            return
        state = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        with suppress(OSError, Moved, RunBusy):  # the error on its way says what failed
            self.close(state, error=f"{type(error).__name__}: {error}")

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event: its fields are numbers, text, or lists and mappings of them.

        Raises:
            ValueError, TypeError: If a field's name or value is not allowed.
            OSError: If it cannot be written.
            Moved, RunBusy: As `look`.
        """
        self.stay.check()
        self.events.write(kind, fields)

    def metric(self, row: Mapping[str, Any]) -> None:
        """Append the numbers of one step; they are in the file within a second.

        Raises:
            ValueError: If it holds a column that was not declared.
            OSError: If it cannot be written.
        """
        self.metrics.write(row)

    def flush(self) -> None:
        """Write the metrics in hand now."""
        self.metrics.flush()

    def look(self) -> None:
        """Make sure that the run is still where it is written to, and put back what is not.

        Raises:
            Moved, RunBusy: If it is not, or another process trains it; nothing is written then.
            OSError: If it cannot be read or written.
        """
        for name in self.stay.look(self.events, self.metrics):
            self.event("put_back", file=name, why="it was removed or replaced")

    def settle(self) -> None:
        """Write the metrics in hand, and wait until they and all events are on the disk.

        Needed before each checkpoint: a power cut right after one would lose the rows of steps that
        are not taken again. What it takes is in `benchmarks/durable.py`.

        Raises:
            Moved, RunBusy, OSError: As `look`.
        """
        self.look()
        self.metrics.settle()
        self.events.settle()

    def status(self, **facts: Any) -> None:
        """Say how it stands: stage, step, loss, seconds left; written with the next heartbeat."""
        with self.guard:
            self.facts.update(facts)

    def tell(self, **facts: Any) -> None:
        """Say how it stands now, without waiting for the next heartbeat."""
        self.status(**facts)
        with suppress(OSError, Moved, RunBusy):  # the next heartbeat tries again
            self._write_status()

    def become(self, state: str) -> None:
        """Change the state that status.json says, now: `running` or `paused`."""
        self.state = state
        with suppress(OSError, Moved, RunBusy):  # the next heartbeat tries again
            self._write_status()

    def close(self, state: str, *, error: str | None = None) -> None:
        """End this attempt: `finished`, `stopped` or `failed`. The run is free afterwards.

        Raises:
            OSError: If the end cannot be written.
        """
        if self.closing.is_set():
            return
        with undisturbed():
            self.closing.set()
            if self.pulse.is_alive():
                self.pulse.join()
            self._end(state, error)

    def _end(self, state: str, error: str | None) -> None:
        """Say how it ended, and let go of the run whether that can be written or not."""
        try:
            self.look()
            self.state = state
            self.event(state, **({} if error is None else {"error": error}))
            self.events.settle()
            self.metrics.close()
            self._write_exit(error)
            if state == "finished":
                with suppress(OSError, RunError):  # the segments stay, and say the same
                    compact(self.folder)
            self._write_status(last=True)  # of a run that says it has ended nothing is missing
        except OSError as refused:
            with suppress(OSError, Moved, RunBusy):  # perhaps a few bytes can be written still
                self.state = "failed"
                self._write_exit(error or str(refused))
                self._write_status(last=True)
            raise
        finally:
            self.events.close()
            self.metrics.file.close()
            self.stay.held.release()

    def _beat(self) -> None:
        while self.stay.lost is None and not self.closing.wait(HEARTBEAT_SECONDS):
            # What cannot be written now stays in hand; the training thread meets the same error.
            with suppress(OSError, Moved, RunBusy):
                self.look()
                self._write_status()
                self.flush()

    def _write_status(self, *, last: bool = False) -> None:
        self.stay.check()
        with self.guard:
            facts = {
                **self.facts,
                **({} if self.worked is None else {status.WORKED: self.worked()}),
                "state": self.state,
                "attempt": self.attempt,
                "pid": os.getpid(),
                **now_facts(lock.boot()),
                "work": beats(),
            }
        status.write(self.folder, facts, last=last)

    def _write_exit(self, error: str | None) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"state": self.state, "time": now, "attempt": self.attempt, "error": error}
        status.write_exit(self.folder, {**facts, "events": self.events.count})
