"""Files of an older version are read by a chain of steps; those of a newer one are refused.

Real folders of older code are in tests/releases; here are the chain itself, with steps that no
version has had yet, and every place that reads a version.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

import stackwise as sw
from stackwise import versions
from stackwise.runs import RunError
from stackwise.runs.asked import asked_of
from stackwise.runs.following import Follower
from stackwise.runs.tail import last_event
from stackwise.study.folder import read_record
from stackwise.training.manifest import CheckpointError, read_manifest
from stackwise.training.start import create_run
from stackwise.versions import Kind, VersionError, unsealed, upgraded

KEY = "schema_version"
SHIPPED = sorted(Path(__file__).parents[2].glob("data/runs/*grow*"))[0]
NEWER = (
    f"is of another version of StackWise, a newer one; this one, {sw.__version__}, reads 1; "
    "upgrade it: pip install --upgrade stackwise"
)


@pytest.fixture
def run(tmp_path) -> sw.Run:
    return sw.Run(shutil.copytree(SHIPPED, tmp_path / "runs" / "mine"))


def test_steps_are_taken_one_after_the_other_and_nothing_is_changed() -> None:
    kind = Kind("thing", "v", 3, {1: lambda v: {**v, "b": v["a"]}, 2: lambda v: {"b": v["b"] + 1}})
    old = {"v": 1, "a": 4}
    assert upgraded(kind, old) == {"b": 5, "v": 3} and old == {"v": 1, "a": 4}
    assert upgraded(kind, {"a": 4}) == {"b": 5}  # what says none is of version 1
    assert upgraded(kind, {"v": 3, "c": 1}) == {"v": 3, "c": 1}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (4, r"^v: 4 is of another version of StackWise, a newer one; this one, .*, reads 3; up"),
        (0, r"^v: 0 is older than what this StackWise reads, 3; open it with the version in"),
        (True, r"^v: True is no version of StackWise's; this one reads 3$"),
        ("3", r"^v: '3' is no version"),
        (-1, r"^v: -1 is no version"),
    ],
)
def test_what_cannot_be_read_is_said(said, why) -> None:
    kind = Kind("thing", "v", 3, {1: dict, 2: dict})
    with pytest.raises(VersionError, match=why):
        upgraded(kind, {"v": said})


def says(path: Path, version: int) -> None:
    """Let a YAML or JSON file say that a version wrote it."""
    if path.suffix == ".yaml":
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), KEY: version}))
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), KEY: version}))


def test_an_older_experiment_is_read_and_stays_as_it_is_on_disk(run, monkeypatch) -> None:
    """As if version 0 had called the learning rate `rate`."""

    def step(values):
        optim = {"lr" if key == "rate" else key: v for key, v in values["optim"].items()}
        return {**values, "optim": optim}

    path, known = run.path / "experiment.yaml", run.experiment
    old = yaml.safe_load(path.read_text()) | {KEY: 0}
    old["optim"]["rate"] = old["optim"].pop("lr")
    text = yaml.safe_dump(old)
    path.write_text(text)
    with pytest.raises(sw.ExperimentError, match="schema_version: 0 is older than what"):
        sw.Experiment.load(path)
    monkeypatch.setitem(versions.EXPERIMENT.steps, 0, step)
    assert sw.Experiment.load(path) == known and sw.Run(run.path).experiment == known
    assert sw.Experiment(**old).hash == known.hash
    assert asked_of(run)["optim"]["lr"] == known.optim.lr
    assert path.read_text() == text


def test_an_older_placement_is_read(run, monkeypatch) -> None:
    path, known = run.path / "placement.yaml", sw.Placement.load(run.path / "placement.yaml")
    values = known.model_dump() | {KEY: 0}
    values["cores"] = values.pop("threads")
    path.write_text(yaml.safe_dump(values))
    rename = lambda v: {"threads" if key == "cores" else key: x for key, x in v.items()}  # noqa: E731
    monkeypatch.setitem(versions.PLACEMENT.steps, 0, rename)
    assert sw.Placement.load(path) == known
    assert yaml.safe_load(known.to_yaml())[KEY] == 1


def test_an_older_study_is_read(tmp_path, monkeypatch) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("schema_version: 0\nbasis: toy\n")
    monkeypatch.setitem(versions.STUDY.steps, 0, lambda v: {KEY: 1, "base": v["basis"]})
    assert read_record(path) == {KEY: 1, "base": "toy"}


def test_stages_and_events_of_an_older_run_are_read(run, monkeypatch) -> None:
    stages, looks, result = run.stages(), run.events("eval"), run.result()
    says(run.path / "provenance.json", 0)
    monkeypatch.setitem(versions.STAGES, 0, lambda stage: {**stage, "name": stage["name"].upper()})
    monkeypatch.setitem(versions.EVENTS, 0, lambda event: {**event, "old": True})
    assert [s["name"] for s in run.stages()] == [s["name"].upper() for s in stages]
    assert run.events("eval") == [{**event, "old": True} for event in looks]
    assert run.result() == {**result, "old": True}
    assert last_event(run.path / "events.jsonl", "eval", whole=True)["old"]
    follower = Follower(run.path)
    follower.read()
    assert all(event["old"] for event in follower.events)


def test_a_manifest_without_its_hash_is_one_of_before_it_had_one(run) -> None:
    path = run.path / "rack" / "manifest.json"
    manifest = json.loads(path.read_text())
    old = {key: value for key, value in manifest.items() if key not in ("sha256", "run")}
    old["parts"] = {
        name: {key: entry[key] for key in ("file", "bytes", "sha256")}
        for name, entry in manifest["parts"].items()
    }
    path.write_text(json.dumps(old))
    found = read_manifest(path.parent)
    assert found["run"] is None and len(found["sha256"]) == 64
    assert found["parts"]["s0"] == {**manifest["parts"]["s0"], "stage": None}
    assert unsealed(old)["parts"] == found["parts"]
    assert sw.Run(run.path).rack().held() == ("s0", "s1", "s2", "s3")

    path.write_text(json.dumps({k: v for k, v in manifest.items() if k != "sha256"}))
    with pytest.raises(CheckpointError, match="its hash is missing or differs"):
        read_manifest(path.parent)


def test_what_a_newer_version_wrote_is_refused_and_both_are_named(run, tmp_path) -> None:
    says(run.path / "provenance.json", 2)
    with pytest.raises(RunError) as error:
        run.rack()
    assert str(error.value) == f"run mine: provenance.json: schema_version: 2 {NEWER}"
    assert run.summary()["problem"] == str(error.value) and run.summary()["state"] == "damaged"
    for name, read in (("experiment", sw.Experiment), ("placement", sw.Placement)):
        path = run.path / f"{name}.yaml"
        says(path, 2)
        with pytest.raises(sw.ExperimentError) as refused:
            read.load(path)
        assert str(refused.value) == f"{path}: schema_version: 2 {NEWER}"
    study = tmp_path / "study.yaml"
    study.write_text("schema_version: 2\nbase: toy\n")
    with pytest.raises(sw.ExperimentError) as refused:
        read_record(study)
    assert str(refused.value) == f"{study}: schema_version: 2 {NEWER}"


def test_a_run_says_which_version_wrote_it(tmp_path) -> None:
    exp = sw.Experiment(data={"corpus": {"kind": "markov", "size_bytes": 20_000}})
    made = create_run(exp, sw.Placement(runs_dir=str(tmp_path), device="cpu"))
    assert made.provenance()[KEY] == versions.RUN.now
    assert exp.identity()[KEY] == 1  # how it is written is no part of what it is
