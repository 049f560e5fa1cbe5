"""A run goes on in another folder to the same bits, beside its data or not; on another machine."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml

import stackwise as sw
from stackwise import determinism
from stackwise.cli import main
from stackwise.errors import ExperimentError
from stackwise.runs.lock import LOCK, RunBusy
from stackwise.training.start import Changed


def stop(work, numbers) -> None:
    work.stop_requested = work.at.total_steps == 10


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    """Two stacks in two stages, so that a stop after step 10 is in the second one."""
    return tiny.replace(
        rack={"stacks": 2}, curriculum="left_to_right", eval={"points": 1, "windows": 2, "final": 4}
    )


@pytest.fixture
def read(exp, tmp_path) -> sw.Experiment:
    """The same, of a text file that the user has."""
    (tmp_path / "home" / "texts").mkdir(parents=True)
    text = "In the beginning was the word, and the word was with all of them. " * 400
    (tmp_path / "home" / "texts" / "mine.txt").write_text(text)
    return exp.replace(**{"data.corpus": {"kind": "text", "path": "texts/mine.txt"}})


def moved(run: sw.Run, target: Path) -> sw.Run:
    """The run, packed and unpacked elsewhere; the folder that it was in is gone."""
    target.mkdir(parents=True)
    packed = run.share(target / "run.zip")
    name = run.id
    shutil.rmtree(run.path)
    with zipfile.ZipFile(packed) as found:
        found.extractall(target)
    return sw.Run(target / name)


@pytest.mark.parametrize("trunk", ["recompute", "streamed", "cached"])
def test_packed_and_unpacked_it_goes_on_to_the_same_bits(
    exp, place, tmp_path, trunk, monkeypatch
) -> None:
    place = place.replace(trunk=trunk)
    exp = exp.replace(curriculum={"embedding": "first"})
    straight = sw.train(exp, place)
    run = sw.train(exp, place, rerun=True, on_step=stop)
    there = moved(run, tmp_path / "far" / "away")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    sw.resume(there)
    assert there.weights_hash() == straight.weights_hash()
    assert there.metrics()["loss"].tolist() == straight.metrics()["loss"].tolist()
    assert there.determinism()["promised"] is True


def test_data_that_was_left_behind_is_named_with_the_way_out(
    read, place, tmp_path, monkeypatch, capsys
) -> None:
    place = place.replace(data_dir=str(tmp_path / "home"))
    straight = sw.train(read, place)
    run = sw.train(read, place, rerun=True, on_step=stop)
    there = moved(run, tmp_path / "far" / "away" / "deep")
    looked = (there.path / sw.Placement.load(there.path / "placement.yaml").data_dir).resolve()
    with pytest.raises(Changed) as error:
        sw.resume(there)
    assert str(error.value) == (
        f"run {there.id}: data.corpus.path=texts/mine.txt: is not in {looked}; put it there, or go "
        "on with placement.data_dir=FOLDER, the folder that it is named from"
    )
    assert there.state == "stopped", "it can be gone on with as before"
    monkeypatch.chdir(tmp_path)
    assert main(["resume", str(there.path), "placement.data_dir=home"]) == 0
    assert there.weights_hash() == straight.weights_hash()
    assert sw.Placement.load(there.path / "placement.yaml").data_dir.startswith("..")


def test_data_that_moves_along_is_found(read, tmp_path) -> None:
    home = tmp_path / "home"
    place = sw.Placement(device="cpu", runs_dir=str(home / "runs"), data_dir=str(home))
    run = sw.train(read, place, on_step=stop)
    there = Path(shutil.move(home, tmp_path / "elsewhere")) / "runs" / run.id
    assert sw.resume(there).state == "finished"


def test_a_card_that_is_not_here_is_said_and_the_cpu_takes_it_over(exp, place, monkeypatch) -> None:
    run = sw.train(exp, place, on_step=stop)
    path = run.path / "placement.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "device": "cuda"}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ExperimentError, match="'cuda', but torch sees no CUDA card here; use auto"):
        sw.resume(run)
    assert run.state == "stopped"
    assert sw.resume(run, placement={"device": "cpu"}).state == "finished"


def test_the_lock_of_a_machine_that_it_came_from_is_no_obstacle(exp, place) -> None:
    """As it was copied while another machine trained it, whose heartbeat is old by now."""
    run = sw.train(exp, place, on_step=stop)
    owner = {"pid": 1, "started": "5", "boot": "another boot", "space": "s", "host": "elsewhere"}
    (run.path / LOCK).write_text(json.dumps(owner))
    status = json.loads((run.path / "status.json").read_text()) | {"state": "running"}
    (run.path / "status.json").write_text(json.dumps(status))
    with pytest.raises(RunBusy, match="process 1 on elsewhere is training it"):
        sw.resume(run)
    os.utime(run.path / "status.json", (0, 0))
    assert sw.resume(run).state == "finished"
    (event,) = run.events("lock_taken_over")
    assert event["pid"] == 1


def test_another_processor_or_torch_ends_the_promise(exp, place, monkeypatch) -> None:
    run = sw.train(exp, place, on_step=stop)
    here = determinism.machine_now

    def other(device):
        return {**here(device), "processor": "Another", "torch": "9.9"}

    monkeypatch.setattr(determinism, "machine_now", other)
    sw.resume(run)
    promise = run.determinism()
    assert promise["promised"] is False
    (why,) = promise["why_not"]
    assert why.startswith("after step 10 processor is Another, was ") and "torch is 9.9" in why
