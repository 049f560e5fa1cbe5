"""A run stays the same run when its process works elsewhere, and what it says to type is right."""

from __future__ import annotations

import shlex

import pytest

import stackwise as sw
from stackwise.runs import Run
from stackwise.runs.lock import take


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_after_a_move_it_is_still_found(made, here, monkeypatch) -> None:
    run = Run(f"runs/{made().id}")
    (run.path / "status.json").write_text('{"state": "running", "heartbeat": 1.0}')
    assert str(run.path) == f"runs/{run.id}"
    monkeypatch.chdir("/")
    assert run.path == here / "runs" / run.id
    lock = take(run.path)
    try:
        assert run.is_live
        run.stop()
    finally:
        lock.release()
    assert len(list((here / "runs" / run.id / "control").iterdir())) == 1
    monkeypatch.chdir(here)
    assert str(run.path) == f"runs/{run.id}"


def test_a_folder_that_is_gone_is_no_place_to_look_from(made, here, monkeypatch) -> None:
    run, gone = Run(f"runs/{made().id}"), here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run.state == "made"


@pytest.mark.parametrize("folder", ["runs", "my runs", "/"])
def test_the_way_out_can_be_pasted(made, here, folder) -> None:
    run = made()
    if folder == "my runs":
        run.path.parent.rename(folder)
    run = Run(run.path if folder == "/" else f"{folder}/{run.id}")
    (run.path / "status.json").write_text('{"state": "stopped"}')
    python, command = str(run.what_now()).removeprefix("go on with it: ").split(", or ")
    found = eval(python.removesuffix(".resume()"), {"sw": sw})
    assert found.path.samefile(run.path)
    assert shlex.split(command)[:2] == ["stackwise", "resume"]
    assert sw.attach(*shlex.split(command)[2:]).path.samefile(run.path)
    assert (run.id == shlex.split(command)[2]) == (folder == "runs")
