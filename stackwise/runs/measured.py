"""What a run measured and said: events, the numbers of its steps and looks, how it ended.

The streams themselves are read in `events.py` and `metrics.py`.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from stackwise.jsontext import read_mapping
from stackwise.printing import printable
from stackwise.runs import status
from stackwise.runs.damage import RESTORE, RunError, blamed_on
from stackwise.runs.disk_use import disk_of
from stackwise.runs.event_lines import Event
from stackwise.runs.events import Whole, found_in
from stackwise.runs.frames import evals_of, memory_of
from stackwise.runs.heartbeat import silent_seconds
from stackwise.runs.labels import read_labels
from stackwise.runs.layers import layers_of
from stackwise.runs.lock import boot
from stackwise.runs.log import last_lines
from stackwise.runs.metrics import read_metrics
from stackwise.runs.records import GOES_ON, MANIFEST, Records
from stackwise.runs.statistics import drift_of, statistics_of
from stackwise.runs.tail import last_event

if TYPE_CHECKING:
    import pandas as pd


class Measured(Records):
    """A run's events and numbers, beside its records."""

    _whole_events: Whole | None = None

    def determinism(self) -> dict[str, Any]:
        """Whether it comes out the same to the last bit when it is trained again, as it stands now.

        Returns:
            `promised`, None where the run does not say; `why_not`, sentences; `same`, what of
            machine and placement has to be the same for it.
        """
        from stackwise.determinism import CHANGED, promised_by

        return promised_by(self.provenance(), self.events(CHANGED))

    def error(self) -> str | None:
        """Why its last attempt failed or died, or what of its folder is damaged; else None."""
        try:
            state = self.state
            if state in ("failed", "died") and (why := self._last_word()) is not None:
                return why
            if state == "died":
                return "its process is gone, without a word"
            if state == "failed":
                return "it failed, and could not write down why"
            self.status(), self.stages()
            if not self.result() and state == "finished":
                return f"events.jsonl is damaged: it holds no result; {RESTORE}"
        except (RunError, OSError) as error:
            return str(error)
        return None

    def _last_word(self) -> str | None:
        """Why its last attempt ended as it did, as that wrote it down; not what one before said."""
        if not (self.path / "exit.json").exists():
            return None
        said, stands = self._read("exit.json", way_out=GOES_ON), self.status()
        same = said.get("attempt") == stands.get("attempt")
        if not same or said.get("state", stands.get("state")) != stands.get("state"):
            return None
        return None if said.get("error") is None else str(said["error"])

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, oldest first. A line that was damaged is left out, with a warning."""
        said = (read_mapping(self.path / "rack" / MANIFEST), status.read(self.path, status.EXIT))
        counts = [n for each in said if isinstance(n := each.get("events"), int)]
        found = found_in(self.path / "events.jsonl", kind, self._whole_events)
        self._whole_events = found.whole or self._whole_events
        lost = found.damaged + max(0, max(counts, default=0) - found.lines)
        if lost:
            warnings.warn(
                f"run {printable(self.id)}: events.jsonl is damaged: {lost} of its lines are "
                "missing or not what was written, and left out; restore it from a copy of the run",
                stacklevel=2,
            )
        return found.events

    def result(self) -> dict[str, Any]:
        """What a finished run came to; empty before."""
        events = self.path / "events.jsonl"
        return last_event(events, "result", whole=self.state == "finished") or {}

    def metrics(self, *, gaps: bool = False) -> pd.DataFrame:
        """The numbers of every step so far, one row each; at most a second old.

        Args:
            gaps: Of a run whose metrics are damaged, give those rows that are whole.

        Raises:
            DamagedRun: If rows are damaged or missing, and gaps are not wanted.
        """
        with blamed_on(self, "metrics/"):
            return read_metrics(self.path, gaps=gaps)

    def evals(self) -> pd.DataFrame:
        """Held-out measurements, one row each; those of steps that were taken again count once."""
        with blamed_on(self, "events.jsonl"):
            return evals_of(self)

    def layers(self) -> pd.DataFrame:
        """Held-out loss at every depth, at every look: one row per look and exit."""
        with blamed_on(self, "events.jsonl"):
            return layers_of(self)

    def statistics(self) -> pd.DataFrame:
        """Sizes of activations, gradients and updates, at every look: one row per block."""
        with blamed_on(self, "events.jsonl"):
            return statistics_of(self)

    def drift(self) -> pd.DataFrame:
        """How far predictions and outputs of stacks moved over each stage after the first."""
        with blamed_on(self, "events.jsonl"):
            return drift_of(self)

    def memory(self) -> pd.DataFrame:
        """Bytes by category of each stage: predicted by arithmetic, and measured."""
        with blamed_on(self, "plan.json or events.jsonl"):
            return memory_of(self)

    def disk(self) -> dict[str, Any]:
        """What its folder takes on disk now, and the most that was predicted.

        Returns:
            `bytes`, in blocks of the disk, a file with two names once; `by`, the same by folder of
            the run, `records` for what lies in none; `predicted_bytes`, of checkpoints and caches
            at their worst moment, None of a run of an older version.
        """
        return disk_of(self)

    def summary(self) -> dict[str, Any]:
        """One line of a list of runs. Never raises: what is damaged is named under `problem`.

        Keys: id, name, state, problem, stage and stages (done so far, of how many), step, loss,
        seconds_left, heartbeat_age_seconds, bits_per_byte, parameters, flops, peak_bytes, seconds,
        disk_bytes, disk_predicted_bytes (of `disk`), pruned; None where it is not known.
        """
        try:
            status, result, stages, problem = self.status(), self.result(), self.stages(), None
        except (RunError, OSError) as error:
            status, result, stages, problem = {}, {}, [], str(error)
        silence, disk = silent_seconds(status, self.path, boot()), self.disk()
        return {
            "id": self.id,
            "name": read_labels(self.path).name,
            "state": "damaged" if problem else self.state,
            "problem": problem,
            "stages": len(stages) or None,
            **{key: status.get(key) for key in ("stage", "step", "loss", "seconds_left")},
            "heartbeat_age_seconds": None if math.isnan(silence) else silence,
            **{
                key: result.get(key)
                for key in ("bits_per_byte", "parameters", "flops", "peak_bytes", "seconds")
            },
            "pruned": list(self.pruned()),
            "disk_bytes": disk["bytes"],
            "disk_predicted_bytes": disk["predicted_bytes"],
        }

    def log(self, lines: int = 20) -> list[str]:
        """The last lines that its processes said; nothing of a run that was not launched."""
        return last_lines(self.path, lines)
