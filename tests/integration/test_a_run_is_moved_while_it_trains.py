"""A run whose folder is taken away under it stops, writes no half run, and goes on where it lies.

So does one whose lock was removed and taken by another process. Files of its own that it has open,
events and numbers, come back where somebody removes or replaces them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.exit_codes import BUSY, DAMAGED, code_of
from stackwise.runs import RunBusy, lock, writer
from stackwise.runs.staying import Moved

AT = 6
SAID = (
    "its folder was moved, removed or replaced while it trained; resume it where it lies now, from "
    "its last checkpoint, or put it back"
)


@pytest.fixture
def often(place) -> sw.Placement:
    """A checkpoint after every step."""
    return place.replace(checkpoint_seconds=1e-9)


@pytest.fixture
def whole(tiny, place, tmp_path) -> sw.Run:
    return sw.train(tiny, place.replace(runs_dir=str(tmp_path / "whole")))


def trained(exp: sw.Experiment, place: sw.Placement, do: Callable[[Path], object]) -> sw.Run:
    """A run to which something is done after a step."""

    def on_step(work, numbers) -> None:
        if work.at.total_steps == AT:
            do(work.run.path)

    return sw.train(exp, place, on_step=on_step)


def same(run: sw.Run, whole: sw.Run) -> None:
    assert run.state == "finished" and run.weights_hash() == whole.weights_hash()
    columns = ["step", "loss", "grad_norm", "flops"]
    assert run.metrics()[columns].equals(whole.metrics()[columns])
    assert run.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


def test_one_that_is_moved_goes_on_where_it_lies(tiny, often, whole, tmp_path) -> None:
    there = tmp_path / "there"
    with pytest.raises(Moved, match=SAID) as raised:
        trained(tiny, often, lambda path: path.rename(there))
    assert code_of(raised.value) == DAMAGED
    assert not list(Path(often.runs_dir).iterdir())
    assert sw.Run(there).state == "died"
    same(sw.resume(there), whole)


def test_one_that_is_removed_is_trained_again(tiny, often, whole) -> None:
    with pytest.raises(Moved):
        trained(tiny, often, shutil.rmtree)
    assert not list(Path(often.runs_dir).iterdir())
    same(sw.train(tiny, often), whole)


def test_nothing_is_written_into_what_stands_in_its_place(tiny, often, tmp_path) -> None:
    def swap(path: Path) -> None:
        path.rename(tmp_path / "there")
        path.mkdir()
        (path / "mine.txt").write_text("mine")

    with pytest.raises(Moved):
        trained(tiny, often, swap)
    (stranger,) = Path(often.runs_dir).iterdir()
    assert os.listdir(stranger) == ["mine.txt"]


def test_it_is_noticed_between_checkpoints_too(tiny, place, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(writer, "HEARTBEAT_SECONDS", 0.001)

    def on_step(work, numbers) -> None:
        if work.at.total_steps == AT:
            work.run.path.rename(tmp_path / "there")
            work.writer.pulse.join()  # it beats no more

    with pytest.raises(Moved):
        sw.train(tiny, place, on_step=on_step)
    assert len(sw.Run(tmp_path / "there").metrics(gaps=True)) <= AT


@pytest.mark.parametrize("link", [False, True])
def test_what_it_writes_to_comes_back(tiny, often, whole, tmp_path, link) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")

    def remove(path: Path) -> None:
        (path / "events.jsonl").unlink()
        shutil.rmtree(path / "metrics")
        if link:
            (path / "events.jsonl").symlink_to(victim)

    run = trained(tiny, often, remove)
    same(run, whole)
    files = [event["file"] for event in run.events("put_back")]
    assert files == ["events.jsonl", "metrics/0001.arrows"]
    assert victim.read_text() == "precious"
    assert [e["seq"] for e in run.events()] == list(range(len(run.events())))


def test_a_removed_lock_is_taken_again(tiny, often, whole) -> None:
    run = trained(tiny, often, lambda path: (path / lock.LOCK).unlink())
    same(run, whole)
    assert [event["file"] for event in run.events("put_back")] == [lock.LOCK]
    lock.take(run.path).release()


def test_one_that_lost_its_lock_to_another_writes_no_more(tiny, often) -> None:
    taken = []

    def steal(path: Path) -> None:
        (path / lock.LOCK).unlink()
        taken.append(lock.take(path))
        taken.append((path / "events.jsonl").read_bytes())

    with pytest.raises(RunBusy, match="is training it") as raised:
        trained(tiny, often, steal)
    assert code_of(raised.value) == BUSY
    (run,) = sw.runs_in(often.runs_dir)
    taken[0].release()
    assert (run.path / "events.jsonl").read_bytes() == taken[1]
    assert sw.resume(run).state == "finished"
