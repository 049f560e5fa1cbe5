"""One bit is flipped, or the end is cut off, in every file of a run's folder in turn.

Then all that can be read of the run is read, and it is resumed. Each reading is what it was before,
or it is refused in words that name the file; what is said of a damaged file instead stands in
`TOLD`. A resumed run comes to the same bits or is refused. There is no traceback, and no figure
that is silently another one. `benchmarks/faults.py` does it at many more places.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stackwise as sw
from stackwise.data.errors import DataError
from stackwise.errors import ExperimentError
from stackwise.memory import meter
from stackwise.report import program
from stackwise.runs import RunError
from stackwise.runs.control import ask
from stackwise.training.manifest import CheckpointError

PASSING = {"heartbeat_age_seconds", "disk_bytes"}  # of this moment
NUMBERS = ["step", "loss", "grad_norm", "flops"]
REFUSED = (RunError, CheckpointError, ExperimentError, DataError)
TOLD = {  # file to what may read otherwise, since it says there that the file is damaged
    "events.jsonl": {"summary", "error", "result", "events", "frames"},  # with a warning
    "labels.json": {"summary", "labels"},  # it decides nothing: a letter may be another one
    "status.json": {"state", "summary", "error"},
    "exit.json": {"error"},
    "stages.json": {"summary", "error"},
    "plan.json": {"summary"},  # what the disk was predicted to hold is not known
}
READINGS: dict[str, Callable[[sw.Run], Any]] = {
    "state": lambda run: run.state,
    "summary": lambda run: {k: v for k, v in run.summary().items() if k not in PASSING},
    "error": sw.Run.error,
    "labels": lambda run: run.labels,
    "experiment": lambda run: run.experiment.to_yaml(),
    "stages": sw.Run.stages,
    "plan": sw.Run.plan,
    "provenance": sw.Run.provenance,
    "tokenizer": lambda run: run.tokenizer().to_json(),
    "result": sw.Run.result,
    "events": sw.Run.events,
    "frames": lambda run: [
        frame().to_csv() for frame in (run.evals, run.layers, run.statistics, run.drift, run.memory)
    ],
    "metrics": lambda run: run.metrics()[NUMBERS].to_csv(),
    "rack": lambda run: sums(run.rack()),
    "best": lambda run: sums(run.rack(best=True)),
    "fork": lambda run: forked(run),
}


def sums(rack) -> list[float]:
    return [value.double().sum().item() for value in rack.state_dict().values()]


def forked(run: sw.Run) -> tuple[str, str]:
    fork = run.fork(after_stage=0, launch=False, optim={"lr": 0.02})
    try:
        return fork.weights_hash(), fork.metrics()[NUMBERS].to_csv()
    finally:
        shutil.rmtree(fork.path)


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(meter.gc, "collect", lambda: 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, sw.Run]:
    return made(tmp_path_factory.mktemp("runs"))


def made(folder: Path) -> dict[str, sw.Run]:
    """A finished run, and the same one stopped in its second stage."""
    exp = sw.Experiment(
        title="t",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 8, "heads": 1, "d_ff": 8},
        data={"corpus": {"kind": "markov", "size_bytes": 4000}, "seq_len": 8},
        optim={"batch": 2, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 9 * 2 * 8},
        eval={
            "points": 3, "windows": 2, "draws": 1, "final": 2, "drift": True, "statistics": True
        },
        curriculum={"name": "left_to_right", "split": "tokens"},
    )  # fmt: skip
    place = sw.Placement(runs_dir=str(folder), device="cpu", trunk="cached")

    def stop(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 5

    found = {
        "finished": sw.train(exp, place),
        "stopped": sw.train(exp, place, rerun=True, on_step=stop),
    }
    for run in found.values():
        run.label(name="a", note="b", tags=["c"])
        ask(run.path, "pause")
    return found


def readings(run: sw.Run) -> dict[str, Any]:
    """What is read of a run: a value, or the refusal. Anything else that is raised is a failure."""
    found = {}
    for name, read in READINGS.items():
        try:
            found[name] = read(run)
        except REFUSED as error:
            found[name] = error
    return found


def damaged(data: bytes, chance: random.Random) -> bytes:
    """With a bit flipped, or cut."""
    place = chance.randrange(len(data))
    if chance.random() < 0.4:
        return data[:place]
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def names(error: Exception, path: Path) -> bool:
    """Whether a refusal names a file, as it is called or by its folder."""
    return path.name.split("-")[0].split(".")[0] in str(error) or path.parts[0] in str(error)


def check(clean: dict[str, Any], found: dict[str, Any], path: Path, said: list[Any]) -> None:
    for name, value in found.items():
        if isinstance(value, Exception):
            assert names(value, path) or isinstance(clean[name], Exception), f"{path}: {value}"
        elif repr(value) != repr(clean[name]):
            assert name in TOLD.get(path.name, ()), f"{path}: {name} is silently another one"
            if name == "events" or (name == "frames" and path.name == "events.jsonl"):
                assert said, f"{path}: {name} says nothing"


@pytest.mark.parametrize("which", ["finished", "stopped"])
def test_no_reading_is_silently_another_one(runs, tmp_path, which) -> None:
    original, chance = runs[which], random.Random(3)
    paths = [path for path in sorted(original.path.rglob("*")) if path.is_file()]
    clean = readings(original)
    copy = Path(shutil.copytree(original.path, tmp_path / original.id))
    for path in filter(lambda path: path.stat().st_size, paths):
        inside = path.relative_to(original.path)
        (copy / inside).write_bytes(damaged(path.read_bytes(), chance))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            check(clean, readings(sw.Run(copy)), inside, said)
        (copy / inside).write_bytes(path.read_bytes())


@pytest.mark.parametrize("which", ["finished", "stopped"])
def test_events_that_are_cut_anywhere_are_missed(runs, tmp_path, which) -> None:
    run = sw.Run(shutil.copytree(runs[which].path, tmp_path / which))
    path, whole = run.path / "events.jsonl", runs[which].events()
    data = path.read_bytes()
    for place in {*range(0, len(data), 97), len(data) - 1}:
        path.write_bytes(data[:place])
        with pytest.warns(UserWarning, match=r"events\.jsonl is damaged"):
            assert run.events() == whole[: data[:place].count(b"\n")]


def test_a_resumed_run_comes_to_the_same_bits_or_is_refused(runs, tmp_path) -> None:
    original, whole, chance = runs["stopped"], runs["finished"], random.Random(4)
    paths = [path for path in sorted(original.path.rglob("*")) if path.is_file()]
    refusals = {}
    for path in filter(lambda path: path.stat().st_size, paths):
        inside = path.relative_to(original.path)
        if inside.parts[0] == "stages" and inside.name != "manifest.json":
            continue  # nothing of them is read
        copy = sw.Run(shutil.copytree(original.path, tmp_path / original.id))
        (copy.path / inside).write_bytes(damaged(path.read_bytes(), chance))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of events that are damaged
                sw.resume(copy)
            assert copy.weights_hash() == whole.weights_hash(), inside
            assert (
                copy.metrics(gaps=inside.parts[0] == "metrics")[NUMBERS]
                .isin(whole.metrics()[NUMBERS].to_numpy().ravel())
                .all(axis=None)
            )
        except REFUSED as error:
            assert names(error, inside), f"{inside}: {error}"
            refusals[inside.parts[0]] = str(error)
        shutil.rmtree(copy.path)
    assert refusals.keys() >= {"rack", "state", "stages.json", "provenance.json"}
    assert not refusals.keys() & {"cache", "events.jsonl", "metrics", "status.json", "control"}


def test_what_is_whole_is_offered_where_the_checkpoint_is_damaged(runs, tmp_path) -> None:
    """Going back, and a fork from the end of the stage, lead to the same bits."""
    run = sw.Run(shutil.copytree(runs["stopped"].path, tmp_path / "damaged"))
    path = next((run.path / "state").glob("s1.optimizer-*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as caught:
        sw.resume(run)
    assert str(caught.value).startswith(f"state/{path.name}: is not what was written")
    assert str(caught.value).endswith(
        f". Or go back to the checkpoint of step 3, which is whole: {program()} resume {run.path} "
        "--from 3, or sw.resume(run, checkpoint=3)"
    )
    back = sw.Run(shutil.copytree(run.path, tmp_path / "back"))
    assert sw.resume(back, checkpoint=3).weights_hash() == runs["finished"].weights_hash()
    fork = sw.resume(run.fork(after_stage=0, launch=False))
    assert fork.weights_hash() == runs["finished"].weights_hash()
    kept = next((run.path / "stages" / "0000" / "rack").glob("s0-*"))
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as caught:
        sw.resume(run)
    assert "Or go" not in str(caught.value), "what is damaged, too, is not offered"
