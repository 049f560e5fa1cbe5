"""A run, read from its folder alone; another process may be writing it meanwhile.

    runs/<run-id>/
      experiment.yaml  placement.yaml  stages.json   what was asked, where, and what is executed
      provenance.json  plan.json                     where the numbers come from; what was predicted
      events.jsonl  metrics/0001.arrows              what happened; the numbers of every step
      status.json  exit.json  lock                   how it stands; how it ended; who trains it now
      rack/  state/  best/                           weights, one safetensors file per part
      tokenizer.json  metrics.parquet                made at the start; at the end
      start/                                         of the model that it began with, if any

Nothing inside is an absolute path, so a run can be moved, zipped and opened elsewhere. Runs are
made and found in `listing.py`, written by `writer.py`.
"""

from __future__ import annotations

import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stackwise.jsontext import loads
from stackwise.runs.events import Event, counted_once, read_events
from stackwise.runs.lock import is_held
from stackwise.runs.metrics import read_metrics

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.config import Experiment
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.model.rack import Rack

EVAL_COLUMNS = ["stage", "step", "tokens", "flops", "seconds", "loss", "bits_per_byte"]
READS = 5
MANIFEST = "manifest.json"  # of a checkpoint; what is in it is said in `training/checkpoint.py`


class RunError(ValueError):
    """A run that is not there, a folder that is not a run, or a file in it that is damaged."""


class Run:
    """One run, read from its folder.

    Args:
        path: The run's folder.

    Raises:
        RunError: If the folder is not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not is_run(self.path):
            raise RunError(f"{self.path}: is not a run (it has no stages.json)")

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.state})"

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """How it stands.

        `made`, `running`, `stopped`, `finished`, `failed`; `died` if it was running and no live
        process holds it; `damaged` if status.json cannot be read.
        """
        try:
            state = str(self.status().get("state", "made"))
        except RunError:
            return "damaged"
        return "died" if state == "running" and not is_held(self.path) else state

    def status(self) -> dict[str, Any]:
        """How it stands: state, stage, step, loss, seconds left, heartbeat; empty if only made."""
        return dict(self._read("status.json")) if (self.path / "status.json").exists() else {}

    @cached_property
    def experiment(self) -> Experiment:
        """What was asked; a curriculum that lived in a notebook cell is known by name only."""
        from stackwise.config import Experiment

        return Experiment.load(self.path / "experiment.yaml", opening_run=True)

    def stages(self) -> list[dict[str, Any]]:
        """What is executed."""
        return list(self._read("stages.json", list))

    def plan(self) -> list[dict[str, Any]]:
        """What was predicted of each stage: FLOPs, bytes by category, by part and by block."""
        return list(self._read("plan.json", list))

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return dict(self._read("provenance.json"))

    def error(self) -> str | None:
        """Why its last attempt failed, or what of its folder is damaged; None for neither."""
        try:
            if self.state == "failed":
                return str(self._read("exit.json").get("error"))
            self.status(), self.stages()
            if not self.result() and self.state == "finished":
                return f"events.jsonl is damaged: it holds no result; {RESTORE}"
        except (RunError, OSError) as error:
            return str(error)
        return None

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, oldest first."""
        found = read_events(self.path / "events.jsonl")
        return found if kind is None else [event for event in found if event.get("kind") == kind]

    def metrics(self) -> pd.DataFrame:
        """The numbers of every step so far, one row each; at most a second old."""
        return read_metrics(self.path)

    def evals(self) -> pd.DataFrame:
        """Held-out measurements, one row each; those of steps that were taken again count once."""
        import pandas as pd

        rows = counted_once(self.events("eval"))
        return pd.DataFrame(rows, columns=None if rows else EVAL_COLUMNS)

    def memory(self) -> pd.DataFrame:
        """Bytes by category of each stage: predicted by arithmetic, and measured."""
        import pandas as pd

        measured = {event["stage"]: event for event in self.events("memory")}
        rows = []
        for row in self.plan():
            seen = measured.get(row["stage"], {})
            for kind, count in row["bytes"].items():
                rows.append((row["stage"], row["name"], kind, count, seen.get(kind)))
            rows.append((row["stage"], row["name"], "peak", row.get("peak_bytes"), seen.get("peak")))
        return pd.DataFrame(rows, columns=["stage", "name", "category", "predicted", "measured"])

    def result(self) -> dict[str, Any]:
        """What a finished run came to; empty before."""
        found = self.events("result")
        return found[-1] if found else {}

    def summary(self) -> dict[str, Any]:
        """One line of a list of runs. Never raises: what is damaged is named under `problem`.

        Keys: id, state, problem, stage and stages (done so far, of how many), step, loss,
        seconds_left, heartbeat_age_seconds, bits_per_byte, parameters, flops, peak_bytes, seconds;
        None where it is not known.
        """
        try:
            status, result, stages, problem = self.status(), self.result(), self.stages(), None
        except (RunError, OSError) as error:
            status, result, stages, problem = {}, {}, [], str(error)
        beat = status.get("heartbeat")
        return {
            "id": self.id,
            "state": "damaged" if problem else self.state,
            "problem": problem,
            "stages": len(stages) or None,
            **{key: status.get(key) for key in ("stage", "step", "loss", "seconds_left")},
            "heartbeat_age_seconds": time.time() - beat if isinstance(beat, float) else None,
            **{
                key: result.get(key)
                for key in ("bits_per_byte", "parameters", "flops", "peak_bytes", "seconds")
            },
        }

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the run was trained with."""
        from stackwise.data.tokenizer import read_tokenizer

        path = self.path / "tokenizer.json"
        if not path.exists():
            raise RunError(f"run {self.id}: tokenizer.json is missing; {RESTORE}")
        return read_tokenizer(path)

    def rack(
        self,
        *,
        best: bool = False,
        raw: bool = False,
        device: str = "cpu",
        lent: Literal["disk", "host"] | None = None,
    ) -> Rack:
        """The model as the last checkpoint holds it, or the best one of the last stage.

        What trains is read at its moving average if there is one, as it will be frozen and as it
        is measured; a finished run has no other weights.

        Args:
            best: The weights of the lowest held-out loss in the last stage, not the last ones.
            raw: Of a run that is not finished, the weights themselves and not their average.
            device: Where to.
            lent: For a rack that does not fit: leave the matrices of stacks that do not train any
                more in their files (`disk`), or in a copy in host memory, and read a few blocks at
                a time as they are needed. Every file is read through once before, to compare its
                hash.

        Raises:
            CheckpointError: If there is none yet, or it is damaged.
        """
        import torch

        from stackwise.training.checkpoint import CheckpointError, CheckpointReplaced
        from stackwise.training.saved import read_rack

        if not self.has_weights():
            state = self.state
            lost = f"is finished, but its rack/{MANIFEST} is missing; {RESTORE}"
            why = lost if state == "finished" else f"has no checkpoint yet; it is {state}"
            raise CheckpointError(f"run {self.id}: {why}")

        for _ in range(READS - 1):
            try:
                return read_rack(self, best=best, raw=raw, device=torch.device(device), lent=lent)
            except CheckpointReplaced:
                continue  # the run goes on, and wrote a newer one meanwhile
        return read_rack(self, best=best, raw=raw, device=torch.device(device), lent=lent)

    def has_weights(self) -> bool:
        """Whether there is a checkpoint of it."""
        return (self.path / "rack" / MANIFEST).is_file()

    def weights_hash(self) -> str:
        """One hash over the weights: equal weights, equal hashes."""
        from stackwise.training.checkpoint import weights_hash

        return weights_hash(self.path / "rack")

    def _read(self, name: str, kind: type[dict[str, Any]] | type[list[Any]] = dict) -> Any:
        """A JSON file of the run."""
        path = self.path / name
        try:
            value = loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(f"run {self.id}: {name} is missing; {RESTORE}") from None
        except ValueError:
            value = None
        if not isinstance(value, kind):
            raise RunError(f"run {self.id}: {name} is damaged; {RESTORE}")
        return value


RESTORE = "restore it from a copy of the run, or train again (rerun=True, --rerun)"


def is_run(path: Path) -> bool:
    """Whether a folder is a run: stages.json, which is made last, is there."""
    try:
        return (path / "stages.json").is_file()
    except OSError:  # a name too long, a folder that may not be read
        return False
