"""Targets: files of a run's folder, of its checkpoint, of a cache and of a study that has run.

Each file is malformed by itself, the others stay whole; then everything that reads it is asked.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest import mock

import stackwise as sw
from stackwise.jsontext import dumps
from stackwise.runs import Run
from stackwise.runs.asked import asked_of, flat
from stackwise.runs.following import Follower
from stackwise.runs.layers import norms_of
from stackwise.screen import one_line, screen
from stackwise.seals import sealed
from stackwise.study.folder import read_result
from stackwise.study.result import StudyResult
from stackwise.training.manifest import read_manifest, read_part
from stackwise.training.part_names import home_of
from stackwise.training.run import Stopped
from stackwise.trunk.cache import TrunkCache

from .asked import refused, told, working_in
from .guard import refuses
from .workplace import KEY, place

Reader = Callable[[Run], object]
STANDING: list[Reader] = [
    Run.status, Run.error, Run.result, Run.summary, Run.what_now, Run.stages_done, repr,
    lambda run: run.is_live, lambda run: run.log(), lambda run: run.labels, one_line, screen,
]  # fmt: skip
EVENTS: list[Reader] = [
    *STANDING, Run.events, Run.evals, Run.layers, Run.statistics, Run.drift, Run.memory,
    lambda run: view_of(run), lambda run: table_of(run),
]  # fmt: skip
METRICS: list[Reader] = [
    Run.metrics, norms_of, screen, lambda run: Follower(run.path).read(), lambda run: view_of(run),
]  # fmt: skip
ASKED: list[Reader] = [
    lambda run: run.experiment, lambda run: flat(asked_of(run)), Run.layers, norms_of, screen,
    lambda run: view_of(run), lambda run: table_of(run), Run.memory, Run.stages, Run.plan,
    Run.stages_done, Run.provenance, Run.summary,
]  # fmt: skip
READERS: dict[str, tuple[str, list[Reader]]] = {
    "events.jsonl": ("lines", EVENTS),
    "status.json": ("json", [*STANDING, lambda run: view_of(run), lambda run: table_of(run)]),
    "exit.json": ("json", STANDING),
    "labels.json": ("json", [*STANDING, lambda run: table_of(run)]),
    "control/0001.json": ("json", STANDING),
    "log.txt": ("bytes", STANDING),
    "stages.json": ("json", [*ASKED, *EVENTS]),
    "plan.json": ("json", ASKED),
    "provenance.json": ("json", ASKED),
    "experiment.yaml": ("yaml", ASKED),
    "placement.yaml": ("yaml", [lambda run: sw.Placement.load(run.path / "placement.yaml")]),
    "metrics/0001.arrows": ("bytes", METRICS),
    "metrics.parquet": ("bytes", METRICS),
    "tokenizer.json": ("json", [Run.tokenizer]),
}


def view_of(run: Run) -> object:
    from stackwise_widgets.charts import view_of as read

    return read(run)


def table_of(run: Run) -> object:
    from stackwise_widgets.charts import runs_table

    return runs_table([run])


def page_of(run: Run) -> object:
    from stackwise_widgets import write_page

    write_page(run, place() / "page.html")
    return None


NEVER = (screen, one_line, Run.summary, Run.error, table_of, view_of)  # they raise for no folder


@cache
def victim(whose: str) -> Path:
    """A copy of one of the runs, whose files are malformed one after the other."""
    return Path(shutil.copytree(place() / "runs" / whose, place() / "victims" / whose))


def run_file(name: str, whose: str, readers: list[Reader]) -> Callable[[bytes], None]:
    """The target of one file of a run."""

    def target(content: bytes) -> None:
        run, path = Run(victim(whose)), victim(whose) / name
        whole = path.read_bytes()
        path.write_bytes(content)
        parquet = run.path / "metrics.parquet"
        aside = name.endswith(".arrows") and parquet.exists() and parquet.read_bytes()
        if aside:
            parquet.unlink()  # else nothing reads the segments
        try:
            refusals = [error for reader in readers if (error := refusal(reader, run))]
        finally:
            path.write_bytes(whole)
            if aside:
                parquet.write_bytes(aside)
        if refusals:
            raise refusals[0]

    return target


def refusal(reader: Reader, run: Run) -> Exception | None:
    """The product's own error that a reader ends in; any other is raised."""
    try:
        reader(run)
    except Exception as error:
        if not refuses(error):
            raise
        return error
    return None


def page(content: bytes) -> None:
    """A page of a run: the first line names the file of it that is malformed."""
    name, _, rest = content.partition(b"\n")
    known = {key.encode(): key for key in READERS}
    run_file(known.get(name, "events.jsonl"), "done", [page_of])(rest)


COMMANDS = (
    "runs", "watch {run} --once", "watch {run} --once --plain", "resume {run}", "eval {run}",
    "sample {run} In --length 4 --steps 2", "export {run} {run}-out", "share {run} {run}.zip",
    "label {run} --name x", "fork {run} 0 optim.lr=0.1", "stop {run}", "delete {run}",
)  # fmt: skip


def commands_on(whose: str) -> Callable[[bytes], None]:
    """Commands about a run: the first line names the file of it that is malformed.

    None of them trains: a run that is resumed stops before its first step.
    """

    def target(content: bytes) -> None:
        name, _, rest = content.partition(b"\n")
        file = next((key for key in FILES if key.encode() == name), "events.jsonl")
        runs = place() / "commanded"
        shutil.rmtree(runs, ignore_errors=True)
        run = Path(shutil.copytree(place() / "runs" / whose, runs / whose))
        with (
            working_in(runs),
            mock.patch("stackwise.training.run.train_stage", side_effect=Stopped),
            mock.patch("stackwise.detached.launch.start", refused),
        ):
            for command in COMMANDS:
                (run / file).parent.mkdir(exist_ok=True)
                (run / file).write_bytes(rest)
                words = command.format(run=whose).split()
                told([*words, "--runs-dir", "."])

    return target


FILES = (*READERS, "rack/manifest.json")


def manifest(content: bytes) -> None:
    """A checkpoint's manifest as it stands."""
    run_file("rack/manifest.json", "half", [Run.rack, Run.stages_done, Run.weights_hash])(content)


def sealed_manifest(content: bytes) -> None:
    """The same with the hash that belongs to it, so that no hash gives it away."""
    try:
        value = json.loads(content)
        content = dumps(sealed(value)).encode() if isinstance(value, dict) else content
    except (ValueError, RecursionError, TypeError):
        pass
    manifest(content)


def part_file(content: bytes) -> None:
    """A part of a checkpoint, with the manifest that belongs to it."""
    folder = victim("half") / "rack"
    said = read_manifest(folder)
    whole = (folder / "manifest.json").read_bytes()
    import hashlib

    digest = hashlib.sha256(content).hexdigest()
    file = f"s0-{digest[:16]}.safetensors"
    entry = {**said["parts"]["s0"], "file": file, "bytes": len(content), "sha256": digest}
    new = sealed({**said, "parts": {**said["parts"], "s0": entry}})
    path = home_of(folder, "s0") / file
    path.write_bytes(content)
    (folder / "manifest.json").write_text(dumps(new))
    try:
        read_part(folder, read_manifest(folder), "s0")
        Run(victim("half")).rack()
    finally:
        (folder / "manifest.json").write_bytes(whole)
        path.unlink()


def cache_manifest(content: bytes) -> None:
    """The manifest of a cache of a trunk's outputs."""
    _cached("cache.json", content)


def cache_shard(content: bytes) -> None:
    """A shard of it."""
    _cached("rows-000001.bin", content)


def _cached(name: str, content: bytes) -> None:
    import torch

    path = place() / "trunk" / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        TrunkCache(path.parent, KEY).read(0, 10, torch.bfloat16)
    finally:
        path.write_bytes(whole)


def study_runs(content: bytes) -> None:
    """The list of runs of a study."""
    path = place() / "study" / "runs.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        str(read_result(StudyResult, path.parent))
    finally:
        path.write_bytes(whole)
