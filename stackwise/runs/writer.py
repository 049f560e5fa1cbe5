"""The writing side of a run folder, held by the process that trains."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stackwise.atomic import replacing, write_text
from stackwise.runs import lock
from stackwise.runs.events import EventLog, plain
from stackwise.runs.lock import RunBusy
from stackwise.runs.metrics import MetricLog, read_metrics

HEARTBEAT_SECONDS = 2.0

__all__ = ["RunBusy", "RunWriter"]


class RunWriter:
    """Writes events, metrics and status. Use as a context: an exception marks the run failed.

    The heartbeat is a thread, since one step may last minutes.

    Args:
        folder: The run's.

    Raises:
        RunBusy: If another process is training the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = lock.take(folder)
        self.attempt = 1 + len(list((folder / "metrics").glob("*.arrows")))
        (folder / "metrics.parquet").unlink(missing_ok=True)
        self.events = EventLog(folder / "events.jsonl", self.attempt)
        self.metrics = MetricLog(folder / "metrics" / f"{self.attempt:04d}.arrows")
        self.facts: dict[str, Any] = {}
        self.state = "running"
        self.guard = threading.Lock()
        self.closing = threading.Event()
        self.pulse = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write_status()
        self.pulse.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.event("failed", error=f"{type(error).__name__}: {error}")
            self.close("failed")
        elif not self.closing.is_set():
            self.close("finished")

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event."""
        self.events.write(kind, fields)

    def metric(self, row: dict[str, Any]) -> None:
        """Append the numbers of one step."""
        self.metrics.write(row)

    def flush(self) -> None:
        """Make the metrics file hold every row so far."""
        self.metrics.flush()

    def status(self, **facts: Any) -> None:
        """Say how it stands; written with the next heartbeat."""
        with self.guard:
            self.facts.update(facts)

    def close(self, state: str) -> None:
        """End this attempt: `finished`, `stopped` or `failed`."""
        self.closing.set()
        if self.pulse.is_alive():
            self.pulse.join()
        self.state = state
        self.event(state)
        self.events.close()
        self.metrics.close()
        if state == "finished":
            with replacing(self.folder / "metrics.parquet") as part:
                read_metrics(self.folder).to_parquet(part)
        self._write_status()
        write_text(self.folder / "exit.json", json.dumps({"state": state, "at": time.time()}))
        self.lock.close()

    def _beat(self) -> None:
        while not self.closing.wait(HEARTBEAT_SECONDS):
            self._write_status()

    def _write_status(self) -> None:
        with self.guard:
            facts = {
                "state": self.state,
                "attempt": self.attempt,
                "pid": os.getpid(),
                "heartbeat": time.time(),
                **self.facts,
            }
        write_text(self.folder / "status.json", json.dumps(plain(facts)), durable=False)
