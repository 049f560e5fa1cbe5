"""What a run's folder takes is what the disk counts, beside what was predicted before."""

from __future__ import annotations

import os
import subprocess

import pytest

import stackwise as sw
from stackwise.jsontext import dumps
from stackwise.memory.disk import cache_bytes, checkpoint_bytes
from stackwise.runs.disk_use import bytes_of
from stackwise.training.start import create_run

LEFT = {"curriculum": "left_to_right", "rack": {"d_model": 32}}


@pytest.fixture
def run(tiny, place) -> sw.Run:
    return sw.train(tiny.replace(**LEFT), place.replace(checkpoint_seconds=1e-9, keep_last=3))


def du(*folders) -> int:
    """What `du` counts: files with two names once, the folders themselves not."""
    names = [str(path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    done = subprocess.run(["du", "-cB1", *names], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1].split()[0])


def test_it_is_what_the_disk_counts(run) -> None:
    found = run.disk()
    assert found["bytes"] == du(run.path) == sum(found["by"].values())
    assert {"rack", "best", "earlier", "stages", "metrics", "records"} <= found["by"].keys()
    assert run.summary()["disk_bytes"] == found["bytes"]


def test_what_two_runs_share_counts_once(run) -> None:
    fork = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    together = bytes_of([run, fork])
    assert together == du(run.path, fork.path)
    assert together < run.disk()["bytes"] + fork.disk()["bytes"]


def test_links_are_not_followed(run, tmp_path) -> None:
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    before = run.disk()["bytes"]
    os.symlink(tmp_path, run.path / "stages" / "9999")
    os.symlink(tmp_path / "large", run.path / "large")
    assert run.disk()["bytes"] <= before + 8192


@pytest.mark.parametrize("trunk", ["recompute", "cached"])
def test_the_plan_holds_what_was_predicted(tiny, place, trunk) -> None:
    exp, place = tiny.replace(**LEFT), place.replace(trunk=trunk, keep_last=2, keep_best=0)
    run = create_run(exp, place)
    made, rows = sw.stages(exp), [row["disk"] for row in run.plan()]
    checkpoints = checkpoint_bytes(exp, made, kept=True, last=2, bests=0)
    assert max(row["checkpoints"] for row in rows) == checkpoints
    assert max(row["caches"] for row in rows) == cache_bytes(exp, place, made, 10**9)
    assert run.disk()["predicted_bytes"] == max(r["checkpoints"] + r["caches"] for r in rows)
    sw.resume(run, placement={"keep_last": 5})
    assert run.disk()["predicted_bytes"] > checkpoints
    assert run.disk()["bytes"] < run.disk()["predicted_bytes"] * 1.5


def test_a_run_of_before_has_none(run) -> None:
    rows = [{key: row[key] for key in row if key != "disk"} for row in run.plan()]
    (run.path / "plan.json").write_text(dumps(rows))
    assert run.disk()["predicted_bytes"] is None and run.summary()["disk_predicted_bytes"] is None
    (run.path / "plan.json").write_text("[3]")
    assert run.disk()["predicted_bytes"] is None
