"""Two processes at one run, at once: one of them has it, the other says so and ends with code 4."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.runs import RunBusy, make_run, parting
from stackwise.runs.lock import take
from stackwise.runs.parting import delete_run
from stackwise.training.run import execute
from stackwise.training.start import create_run
from tests.children import child, code_of, end_all


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No child outlives its test."""
    yield
    end_all()


def test_of_two_that_train_it_at_once_one_does(tiny, place, tmp_path) -> None:
    """Both stand before the lock when they are let go, and who has it waits for the other's end."""
    straight = sw.train(tiny, place.replace(runs_dir=str(tmp_path / "straight")))
    run = create_run(tiny, place)
    ready, go, told = os.pipe(), os.pipe(), os.pipe()

    def trains() -> int:
        def wait(work, numbers):
            if work.at.total_steps == 1:
                assert os.read(told[0], 1)  # the other one was refused

        os.write(ready[1], b"!")
        os.read(go[0], 1)
        try:
            execute(run, on_step=wait)
        except RunBusy as busy:
            os.write(2, str(busy).encode())
            os.write(told[1], b"!")
            return 4
        return 0

    numbers = [child(trains, tmp_path / "said") for _ in range(2)]
    os.read(ready[0], 1), os.read(ready[0], 1)
    os.write(go[1], b"!!")
    codes = [code_of(number) for number in numbers]
    assert sorted(codes) == [0, 4]
    winner = numbers[codes.index(0)]
    assert (tmp_path / "said").read_text() == (
        f"run {run.id}: process {winner} is training it; watch it, or stop it first"
    )
    assert run.state == "finished" and run.weights_hash() == straight.weights_hash()
    assert [event["attempt"] for event in run.events("opened")] == [1]


@pytest.mark.parametrize("command", ["resume", "delete"])
def test_the_command_line_says_so_with_code_4(tiny, place, tmp_path, capfd, command) -> None:
    codes = []

    def on_step(work, numbers):
        if work.at.total_steps == 2:
            more = ["--yes"] if command == "delete" else []
            asked = child(lambda: main([command, str(work.run.path), *more]), tmp_path / "said")
            codes.append(code_of(asked))

    run = sw.train(tiny, place, on_step=on_step)
    assert codes == [4] and run.state == "finished"


def test_two_that_make_it_at_once_make_one(tiny, place, tmp_path) -> None:
    """One is held in the middle of making; the other waits for a whole folder."""
    from stackwise.runs import provenance

    held, go = os.pipe(), os.pipe()
    of = provenance.provenance_of

    def slow(folder):
        os.write(held[1], b"!")
        os.read(go[0], 1)
        return of(folder)

    def first() -> int:
        provenance.provenance_of = slow
        create_run(tiny, place)
        return 0

    def second() -> int:
        os.write(go[1], b"!")  # by now or later: it waits whenever that is
        return 0 if create_run(tiny, place).stages() else 1

    one = child(first, tmp_path / "said")
    os.read(held[0], 1)
    (folder,) = Path(place.runs_dir).iterdir()
    with pytest.raises(RunBusy):
        take(folder)
    other = child(second, tmp_path / "said")
    assert [code_of(one), code_of(other)] == [0, 0], (tmp_path / "said").read_text()
    (run,) = sw.runs_in(place.runs_dir)
    assert execute(run).state == "finished"


def test_one_that_died_while_it_made_a_run_is_followed(tmp_path) -> None:
    def dies() -> int:
        folder = tmp_path / "toy-1"
        folder.mkdir()
        take(folder)
        return 9

    assert code_of(child(dies, tmp_path / "said")) == 9
    run = make_run(tmp_path, "toy-1", experiment="", placement="", stages=[], plan=[], facts={})
    assert run.state == "made"


def test_none_begins_while_it_is_removed(tiny, place, monkeypatch) -> None:
    run = create_run(tiny, place)
    rename, refused = os.rename, []

    def meanwhile(source, target):
        with pytest.raises(RunBusy) as busy:
            execute(run)
        refused.append(str(busy.value))
        rename(source, target)

    monkeypatch.setattr(parting.os, "rename", meanwhile)
    delete_run(run)
    assert len(refused) == 1 and sw.runs_in(place.runs_dir) == []


def test_packed_and_forked_while_it_trains_it_goes_on(tiny, place, tmp_path) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    place = place.replace(checkpoint_seconds=1e-9)
    straight = sw.train(exp, place)
    run, forks = create_run(exp, place, rerun=True), []

    def on_step(work, numbers):
        if work.at.total_steps == 7:
            run.share(tmp_path / "run.zip")
            forks.append(run.fork(after_stage=0, optim={"lr": 0.02}, launch=False))

    execute(run, on_step=on_step)
    assert run.weights_hash() == straight.weights_hash()
    assert execute(forks[0]).state == "finished"
    with zipfile.ZipFile(tmp_path / "run.zip") as packed:
        packed.extractall(tmp_path / "elsewhere")
    copy = sw.attach(tmp_path / "elsewhere" / run.id)
    assert sw.resume(copy).weights_hash() == straight.weights_hash()
