"""A run, from its folder alone: make one, find one, read one.

    runs/<run-id>/
      experiment.yaml  placement.yaml  stages.json   what was asked, where, and what is executed
      provenance.json  plan.json                     where the numbers come from; what was predicted
      events.jsonl  metrics/0001.arrows              what happened; the numbers of every step
      status.json  exit.json  lock                   how it stands; how it ended; who trains it now
      rack/  best/                                   weights, one safetensors file per part
      tokenizer.json  metrics.parquet                made at the start; at the end

Nothing inside is an absolute path, so a run can be moved, zipped and opened elsewhere.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.atomic import write_text
from stackwise.runs.events import Event, read_events
from stackwise.runs.lock import is_held
from stackwise.runs.metrics import read_metrics
from stackwise.runs.provenance import provenance_of

if TYPE_CHECKING:
    import pandas as pd

    from stackwise.config import Experiment
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.model.rack import Rack

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RunError(ValueError):
    """A run that is not there, or a folder that is not a run."""


class Run:
    """One run, read from its folder; another process may be writing it meanwhile.

    Args:
        path: The run's folder.

    Raises:
        RunError: If the folder is not a run.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "stages.json").is_file():
            raise RunError(f"{self.path}: is not a run (it has no stages.json)")

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self.state})"

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def state(self) -> str:
        """`made`, `running`, `stopped`, `finished`, `failed`, or `died` (it was running, once)."""
        state = str(self.status().get("state", "made"))
        return "died" if state == "running" and not is_held(self.path) else state

    def status(self) -> dict[str, Any]:
        """How it stands: state, stage, step, loss, seconds left, heartbeat."""
        path = self.path / "status.json"
        return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}

    @cached_property
    def experiment(self) -> Experiment:
        """What was asked; a curriculum that lived in a notebook cell is known by name only."""
        from stackwise.config import Experiment

        return Experiment.load(self.path / "experiment.yaml", opening_run=True)

    def stages(self) -> list[dict[str, Any]]:
        """What is executed."""
        return list(json.loads((self.path / "stages.json").read_text("utf-8")))

    def plan(self) -> list[dict[str, Any]]:
        """What was predicted of each stage: FLOPs, bytes by category, by part and by block."""
        return list(json.loads((self.path / "plan.json").read_text("utf-8")))

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return dict(json.loads((self.path / "provenance.json").read_text("utf-8")))

    def events(self, kind: str | None = None) -> list[Event]:
        """What happened, oldest first."""
        found = read_events(self.path / "events.jsonl")
        return found if kind is None else [event for event in found if event.get("kind") == kind]

    def metrics(self) -> pd.DataFrame:
        """The numbers of every step so far, one row each."""
        return read_metrics(self.path)

    def evals(self) -> pd.DataFrame:
        """Held-out measurements, one row each; those of a resumed step count once."""
        import pandas as pd

        rows = {(event["step"], event["stage"]): event for event in self.events("eval")}
        return pd.DataFrame([rows[key] for key in sorted(rows)])

    def memory(self) -> pd.DataFrame:
        """Bytes by category of each stage: predicted by arithmetic, and measured."""
        import pandas as pd

        measured = {event["stage"]: event for event in self.events("memory")}
        rows = []
        for row in self.plan():
            seen = measured.get(row["stage"], {})
            for kind, count in row["bytes"].items():
                rows.append((row["stage"], row["name"], kind, count, seen.get(kind)))
            rows.append((row["stage"], row["name"], "peak", None, seen.get("peak")))
        return pd.DataFrame(rows, columns=["stage", "name", "category", "predicted", "measured"])

    def result(self) -> dict[str, Any]:
        """What a finished run came to; empty before."""
        found = self.events("result")
        return found[-1] if found else {}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the run was trained with."""
        from stackwise.data.tokenizer import read_tokenizer

        return read_tokenizer(self.path / "tokenizer.json")

    def rack(self, *, best: bool = False) -> Rack:
        """The model as the last checkpoint holds it, or the best one of the last stage."""
        from stackwise.training.work import read_rack

        return read_rack(self, best=best)

    def weights_hash(self) -> str:
        """One hash over the weights: equal weights, equal hashes."""
        from stackwise.training.checkpoint import weights_hash

        return weights_hash(self.path / "rack")


def make_run(
    runs_dir: str | Path,
    run_id: str,
    *,
    experiment: str,
    placement: str,
    stages: list[dict[str, Any]],
    plan: list[dict[str, Any]],
    facts: dict[str, Any],
    rerun: bool = False,
) -> Run:
    """Make a run folder, or find the one of that name.

    Args:
        runs_dir: Folder of the runs; made if it is not there.
        run_id: Name of the folder.
        experiment: YAML.
        placement: YAML.
        stages: The stages, as JSON.
        plan: What each is predicted to take.
        facts: What provenance.json says beside versions and machine.
        rerun: Make another, `-2`, `-3`, ..., even if there is one.

    Raises:
        RunError: If the name cannot be a folder's.
    """
    if not ID.fullmatch(run_id):
        raise RunError(f"run id {run_id!r}: only letters, digits, '.', '_' and '-' are allowed")
    folder = Path(runs_dir) / run_id
    number = 2
    while rerun and folder.exists():
        folder = Path(runs_dir) / f"{run_id}-{number}"
        number += 1
    if (folder / "stages.json").exists():
        return Run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "experiment.yaml", experiment)
    write_text(folder / "placement.yaml", placement)
    write_text(folder / "plan.json", json.dumps(plan, indent=1))
    write_text(folder / "provenance.json", json.dumps({**provenance_of(), **facts}, indent=1))
    write_text(folder / "stages.json", json.dumps(stages, indent=1))
    return Run(folder)


def attach(run: str | Path, runs_dir: str | Path = "runs") -> Run:
    """A run by its folder, its id, or the beginning of its id.

    Raises:
        RunError: If there is none, or several; the message lists what there is.
    """
    if (Path(run) / "stages.json").is_file():
        return Run(run)
    known = runs_in(runs_dir)
    exact = [found for found in known if found.id == str(run)]
    found = exact or [other for other in known if other.id.startswith(str(run))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(other.id for other in found or known)) or "none"
    why = f"{len(found)} runs begin so" if found else "no such run"
    raise RunError(f"{run}: {why} in {runs_dir}; there are: {names}")


def runs_in(runs_dir: str | Path = "runs") -> list[Run]:
    """The runs in a folder, newest first."""
    folder = Path(runs_dir)
    if not folder.is_dir():
        return []
    made = [path for path in folder.iterdir() if (path / "stages.json").is_file()]
    return [Run(p) for p in sorted(made, key=lambda p: -(p / "stages.json").stat().st_mtime)]
