"""A link or a pipe in a stranger's run: nothing is read, packed, written or removed through it."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

import stackwise as sw
from stackwise.detached.launch import relaunch
from stackwise.runs import RunError, runs_in
from stackwise.runs.control import ask
from stackwise.training.run import resume

SECRET = "the secret of somebody else\n"
FOLDERS = ("rack", "state", "stages", "metrics", "control", "cache", "best", "code", "start")
FILES = (
    *("log.txt", "events.jsonl", "status.json", "lock", "supervisor", "labels.json"),
    *("placement.yaml", "tokenizer.json", "metrics.parquet", "rack/x", "stages/0000/x"),
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> sw.Run:
    exp = sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 16},
        optim={"batch": 4},
        curriculum="left_to_right",
        budget={"tokens": 8 * 4 * 16},
        eval={"points": 2, "windows": 2, "final": 2},
    )
    place = sw.Placement(runs_dir=str(tmp_path_factory.mktemp("runs")), device="cpu", threads=1)

    def stop(work, numbers):
        work.stop_requested = work.at.total_steps > 5

    return sw.train(exp, place, on_step=stop)


@pytest.fixture
def run(stopped, tmp_path) -> sw.Run:
    return sw.Run(shutil.copytree(stopped.path, tmp_path / "runs" / stopped.id))


@pytest.fixture
def home(tmp_path) -> Path:
    """A folder of somebody's, with a file in it that could be taken for one of ours."""
    home = tmp_path / "home"
    (home / "0").mkdir(parents=True)
    for name in ("notes.txt", "cache.json", "manifest.json", ".x.part", "0/cache.json"):
        (home / name).write_text(SECRET)
    return home


def kept(home: Path) -> bool:
    found = {p.relative_to(home).as_posix(): p.read_text() for p in home.rglob("*") if p.is_file()}
    names = {"notes.txt", "cache.json", "manifest.json", ".x.part", "0/cache.json"}
    return found == dict.fromkeys(names, SECRET)


def put_link(run: sw.Run, name: str, target: Path) -> None:
    path = run.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_a_run_with_a_link_is_neither_trained_nor_packed(run, home, name, tmp_path) -> None:
    put_link(run, name, home if name in FOLDERS else home / "notes.txt")
    acts = [
        lambda: resume(run),
        lambda: relaunch(run),
        lambda: run.fork(after_stage=0, launch=False, optim={"lr": 1e-3}),
        lambda: run.share(tmp_path / "run.zip"),
        lambda: run.share(tmp_path / "bare.zip", weights=False),
    ]
    for act in acts:
        with pytest.raises((OSError, RuntimeError, ValueError)) as error:
            act()
        if isinstance(error.value, OSError):
            assert f"{name}: is a link, which could lead out" in str(error.value)
    page = run.share(tmp_path / "run.html")
    assert SECRET.strip() not in page.read_text()
    assert SECRET.strip() not in "".join(run.log()) + str(run.labels)
    if name == "events.jsonl":
        with pytest.raises(OSError):
            run.events()
    assert not (tmp_path / "run.zip").exists() and kept(home)
    run.delete()
    assert kept(home) and not run.path.exists()


def test_the_way_out_of_a_link_is_said(run, home) -> None:
    put_link(run, "log.txt", home / "notes.txt")
    with pytest.raises(OSError) as error:
        resume(run)
    assert str(error.value) == (
        "[Errno 40] log.txt: is a link, which could lead out of the run's folder; remove it: "
        f"'{run.id}'"
    )
    (run.path / "log.txt").unlink()
    assert resume(run).state == "finished"


def test_a_pipe_is_never_waited_for(run) -> None:
    for name in ("status.json", "labels.json", "exit.json", "lock", "log.txt", "events.jsonl"):
        (run.path / name).unlink(missing_ok=True)
        os.mkfifo(run.path / name)
    assert run.summary()["id"] == run.id and run.log() == [] and run.labels.name == ""
    assert [found.id for found in runs_in(run.path.parent)] == [run.id]
    with pytest.raises((OSError, RunError)):
        resume(run)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model.safetensors.index.json"]
)
def test_a_pipe_in_a_models_folder_is_never_waited_for(tmp_path, name) -> None:
    from stackwise.interop.errors import ModelError

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match="is no file; fetch it again"):
        sw.import_model(tmp_path, tmp_path / "out")


def test_a_pipe_in_a_mirror_is_never_waited_for(tmp_path) -> None:
    from stackwise.mirrors.errors import MirrorError
    from stackwise.mirrors.fetching import fetch

    os.mkfifo(tmp_path / "index-00000001.json")
    with pytest.raises(MirrorError, match="is no file; it is not ours"):
        fetch(str(tmp_path), tmp_path / "runs")


def test_an_endless_plan_has_a_bar() -> None:
    from stackwise.progress import bar_over

    with bar_over(float("inf")) as bar:
        bar.enter("a", 1e308)
        bar.end()


def test_nothing_is_asked_through_a_link(run, home) -> None:
    put_link(run, "control", home)
    with pytest.raises(OSError, match="leads out of the run's folder"):
        ask(run.path, "stop")
    assert kept(home)


def test_caches_of_a_strangers_placement_are_only_caches(run, home) -> None:
    """`cache_dir` names somebody's folder; what the run removes at its end is none of that."""
    theirs = home.rename(home.with_name(run.id))
    place = yaml.safe_load((run.path / "placement.yaml").read_text())
    changes = {"trunk": "cached", "cache_dir": str(theirs.parent)}
    (run.path / "placement.yaml").write_text(yaml.safe_dump({**place, **changes}))
    resume(run, placement={"trunk": "recompute"})
    assert kept(theirs)


@pytest.mark.parametrize("name", ["../out", "/etc", "a\0b", "x" * 5000, "..", ".", "", "a/b"])
def test_no_id_leads_out_of_the_folder_of_runs(tmp_path, name) -> None:
    from stackwise.runs.listing import make_run

    text = {"experiment": "", "placement": "", "stages": [], "plan": [], "facts": {}}
    with pytest.raises(RunError, match="run id"):
        make_run(tmp_path / "runs", name, **text)
    with pytest.raises(RunError):
        sw.attach(name, tmp_path / "runs")
    assert not (tmp_path / "out").exists()


def test_a_manifest_names_no_file_elsewhere(run, home) -> None:
    from stackwise.training.checkpoint import MANIFEST, CheckpointError, read_manifest, sealed

    manifest = read_manifest(run.path / "rack")
    entry = manifest["parts"].pop("s0")
    for part in ("../../home/s0", "/etc/s0", "s0\0", "a/b"):
        digest = entry["sha256"][:16]
        forged = {**manifest["parts"], part: {**entry, "file": f"{part}-{digest}.safetensors"}}
        text = json.dumps(sealed({**manifest, "parts": forged}))
        (run.path / "rack" / MANIFEST).write_text(text)
        with pytest.raises(CheckpointError, match="names a file that cannot be ours"):
            run.rack()


@pytest.mark.parametrize("said", [{"stage": 99}, {"stage": 2}, {"stage": 0, "step": 0}, None])
def test_a_manifest_says_no_stage_that_its_parts_are_not_of(run, said) -> None:
    from stackwise.training.checkpoint import MANIFEST, CheckpointError, read_manifest, sealed

    manifest = read_manifest(run.path / "rack")
    counters = [1] if said is None else {**manifest["counters"], **said}
    del manifest["parts"]["s1"]
    (run.path / "rack" / MANIFEST).write_text(
        json.dumps(sealed({**manifest, "counters": counters}))
    )
    for act in (run.rack, lambda: resume(run)):
        with pytest.raises(CheckpointError, match=r"is of another stage|its counters are none"):
            act()


def test_a_zip_holds_the_run_and_no_path_out(run, tmp_path) -> None:
    run.share(tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as packed:
        for name in packed.namelist():
            assert name.startswith(f"{run.id}/") and ".." not in Path(name).parts
