"""A run is packed while another process replaces its checkpoint: what comes out can be read."""

from __future__ import annotations

import json
import threading
import zipfile

import pytest
import torch

from stackwise.runs import Run
from stackwise.training import checkpoint, kept_stages
from stackwise.training.manifest import CheckpointReplaced, read_manifest, read_part


def save(run: Run, step: int) -> None:
    """A checkpoint in which all parts say the same step."""
    numbers = {"step": torch.full((1,), float(step)), "weight": torch.rand(1 << 15)}
    parts = {"embedding": numbers, "s0": numbers, "s0.optimizer": numbers}
    checkpoint.save(run.path / "rack", parts, counters={"stage": 0, "step": step})
    checkpoint.save(run.path / "best", {"s0": numbers}, step=step)


def steps_in(folder) -> set[float]:
    """The steps that the parts of a checkpoint say, each compared with its hash."""
    manifest = read_manifest(folder)
    return {float(read_part(folder, manifest, n)["step"][0]) for n in manifest["parts"]}


def unpacked(path, target) -> Run:
    with zipfile.ZipFile(path) as packed:
        packed.extractall(target)
    (found,) = target.iterdir()
    return Run(found)


def test_each_time_it_holds_one_whole_checkpoint(made, tmp_path) -> None:
    run, done = made(), threading.Event()
    save(run, 0)

    def train() -> None:
        step = 0
        while not done.is_set():
            save(run, step := step + 1)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for number in range(15):
            again = unpacked(run.share(tmp_path / "run.zip"), tmp_path / str(number))
            assert len(steps_in(again.path / "rack")) == 1
            assert len(steps_in(again.path / "best")) == 1
            assert (again.path / "state").is_dir()
    finally:
        done.set()
        thread.join()
    assert not [path for path in run.path.iterdir() if path.name.startswith(".share")]


def replaced_while_copied(run: Run, monkeypatch, times: int) -> None:
    """Let a newer checkpoint come between the reading of the manifest and the first file."""
    came, verify = [0], kept_stages.verify_part

    def late(folder, manifest, name, **how):
        if came[0] < times and folder.name == "rack":
            came[0] += 1
            save(run, came[0])
        return verify(folder, manifest, name, **how)

    monkeypatch.setattr(kept_stages, "verify_part", late)


def test_one_that_is_replaced_meanwhile_is_copied_anew(made, tmp_path, monkeypatch) -> None:
    run = made()
    save(run, 0)
    replaced_while_copied(run, monkeypatch, 3)
    again = unpacked(run.share(tmp_path / "run.zip"), tmp_path / "there")
    assert steps_in(again.path / "rack") == {3.0}


def test_one_that_is_replaced_each_time_is_said_to_be(made, tmp_path, monkeypatch) -> None:
    run = made()
    save(run, 0)
    replaced_while_copied(run, monkeypatch, 1000)
    with pytest.raises(CheckpointReplaced, match="a newer checkpoint was written"):
        run.share(tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()
    assert not [path for path in run.path.iterdir() if path.name.startswith(".share")]


def test_one_that_ends_meanwhile_is_packed_as_it_stood(made, tmp_path, monkeypatch) -> None:
    """Else it would say that it is finished, and hold an older checkpoint."""
    run, copy = made(), kept_stages.copy_checkpoint
    save(run, 0)
    (run.path / "status.json").write_text('{"state": "stopped"}')

    def then_finished(rack, target) -> None:
        copy(rack, target)
        (run.path / "status.json").write_text('{"state": "finished"}')

    monkeypatch.setattr(kept_stages, "copy_checkpoint", then_finished)
    again = unpacked(run.share(tmp_path / "run.zip"), tmp_path / "there")
    assert json.loads((again.path / "status.json").read_text()) == {"state": "stopped"}


def test_a_damaged_one_is_packed_as_it_is(made, tmp_path) -> None:
    run = made()
    save(run, 0)
    (file,) = (run.path / "rack").glob("s0-*")
    file.unlink()
    again = unpacked(run.share(tmp_path / "run.zip"), tmp_path / "there")
    names = {path.name for path in (run.path / "rack").iterdir()}
    assert {path.name for path in (again.path / "rack").iterdir()} == names


def test_of_a_run_without_a_checkpoint_there_is_the_rest(made, tmp_path) -> None:
    run = made()
    again = unpacked(run.share(tmp_path / "run.zip"), tmp_path / "there")
    assert (again.id, again.stages(), again.has_weights()) == (run.id, run.stages(), False)
