"""A mirror that follows a run: a thread of its own copies each checkpoint, the newest first.

It never holds up the run and never ends it. What fails is an event, `mirror_failed`, and is tried
again with the next checkpoint; while one is copied, those that come meanwhile are one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stackwise.bounded import check_no_links
from stackwise.mirrors.copying import Copies
from stackwise.mirrors.errors import of_address, redacted
from stackwise.printing import say
from stackwise.runs import Run, RunBusy, RunError, RunWriter, lock
from stackwise.runs.event_log import append_event
from stackwise.runs.pruned import pruned_of
from stackwise.training.manifest import CheckpointError

VARIABLE = "STACKWISE_MIRROR"
LAST_SECONDS = 600.0  # that the end of a run waits for its last copy


class Mirror:
    """Copies a run whenever it is told that there is something new.

    Args:
        run: The run.
        url: An fsspec address; the run has a folder of its own there.

    Raises:
        RunError: If fsspec does not know the address.
    """

    def __init__(self, run: Run, url: str) -> None:
        self.copies = Copies.at(run, url)
        self.writer: RunWriter | None = None
        self.well = False  # whether the last copy was made
        self.unsaid: list[tuple[str, dict[str, Any]]] = []
        self.due, self.ending, self.guard = threading.Event(), threading.Event(), threading.Lock()
        self.thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def note(self) -> None:
        """Say that a checkpoint was written; returns at once."""
        self.due.set()

    def speak(self, writer: RunWriter | None) -> None:
        """Who writes events from here on, which begins to copy; None while nobody can."""
        with self.guard:
            self.writer = writer
        if writer is not None and self.thread.ident is None:
            self.thread.start()

    def end(self, seconds: float = LAST_SECONDS) -> None:
        """Copy how the run ended, and wait for that, but no longer than `seconds`.

        A run that never began, since it is another process's or cannot be had, is not copied.
        """
        if self.thread.ident is None:
            return
        self.speak(None)
        self.ending.set()
        self.due.set()
        why = f"the last copy was not there after {seconds:.0f} s"
        try:
            self.thread.join(seconds)
        except KeyboardInterrupt:  # the run itself is saved and closed
            why = "the last copy was not waited for"
        if self.thread.is_alive():
            self._say("mirror_failed", error=why)
        self._write_unsaid()

    def _follow(self) -> None:
        while True:
            self.due.wait()
            last = self.ending.is_set()
            self.due.clear()
            try:
                done = self.copies.send()
            except Exception as error:  # an address may raise anything, and no copy ends a run
                self.well = False
                self._say("mirror_failed", error=redacted(f"{type(error).__name__}: {error}"))
            else:
                self._say_done(done)
            if last:
                return
            if self.ending.is_set():
                self.due.set()

    def _say_done(self, done: dict[str, Any]) -> None:
        """An event the first time and after a failure; status.json says each time how far it is."""
        if not self.well:
            self._say("mirrored", to=self.copies.store.shown, **done)
        self.well = True
        with self.guard:
            if self.writer is not None:
                self.writer.status(mirrored_step=done["step"])

    def _say(self, kind: str, **fields: Any) -> None:
        with self.guard:
            try:
                if self.writer is not None:
                    self.writer.event(kind, **fields)
                    return
            except (OSError, ValueError):  # the disk is full, or the run has just been closed
                pass
            self.unsaid.append((kind, fields))

    def _write_unsaid(self) -> None:
        """Write down what was not said while the run was open, if nobody trains it by now."""
        run = self.copies.run.path
        with self.guard:
            said, self.unsaid = [e for e in self.unsaid if e[0] == "mirror_failed"], []
        try:
            if said:
                with lock.take(run):
                    for kind, fields in said:
                        append_event(run, kind, **fields)
        except (OSError, RunBusy) as error:
            say(f"mirror_failed: {said} ({error})", error=True)


@contextmanager
def mirrored(run: Run, url: str | None) -> Iterator[Mirror | None]:
    """Inside, a run is mirrored; at the end its last state is copied, in a bounded time."""
    if not url:
        yield None
        return
    mirror = Mirror(run, url)
    try:
        yield mirror
    finally:
        mirror.end()


def mirror_of(given: str | None) -> str | None:
    """The address that this user names: here, or by the environment; empty or None for none."""
    return os.environ.get(VARIABLE) if given is None else given


def copy_now(run: Run, url: str, *, asked: bool = True) -> None:
    """Copy a run that nobody trains.

    Args:
        run: The run.
        url: Where to.
        asked: Whether that is what was asked for. If not, as where the environment names the
            address for whatever is trained, a failure is said and no more.

    Raises:
        RunError, MirrorError, OSError: If it cannot be copied, and that was asked for.
    """
    if not asked and "weights" in pruned_of(run.path):
        return
    try:
        check_no_links(run.path)
        with of_address(redacted(url)):
            Copies.at(run, url).send()
    except (OSError, RunError, CheckpointError) as error:
        if asked:
            raise
        say(f"note: run {run.id} was not mirrored: {error}", error=True)
