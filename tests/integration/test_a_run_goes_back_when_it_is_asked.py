"""Earlier checkpoints and the best weights: how many there are, and going back to one of them."""

from __future__ import annotations

import math
import os
import shutil
import zipfile
from contextlib import suppress
from copy import deepcopy
from itertools import pairwise

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.report import program
from stackwise.runs import RunBusy, RunError, lock
from stackwise.runs.records import MANIFEST
from stackwise.training import earlier
from stackwise.training.earlier import checkpoints_of
from stackwise.training.manifest import CheckpointError, read_manifest

EVEN = {"name": "left_to_right", "split": "tokens"}  # four stages of four steps


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(curriculum=EVEN, eval={"points": 16})


@pytest.fixture
def often(place) -> sw.Placement:
    return place.replace(checkpoint_seconds=1e-9, keep_last=3, keep_best=2, keep_stages=False)


def steps(run: sw.Run) -> list[int]:
    return [kept.step for kept in run.checkpoints()]


def flip(path) -> None:
    """One bit of a file, in all of its names."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def test_so_many_are_there_after_every_step(exp, often) -> None:
    seen = []

    def on_step(work, numbers) -> None:
        seen.append(steps(work.run))

    run = sw.train(exp, often, on_step=on_step)
    assert seen[:5] == [[], [1], [2, 1], [3, 2, 1], [4, 3, 2]]
    assert all(len(found) == 3 for found in seen[3:])
    assert steps(run) == [16, 15, 14]


def test_one_is_one_as_ever(exp, often) -> None:
    run = sw.train(exp, often.replace(keep_last=1, keep_best=1))
    assert steps(run) == [16]
    assert not (run.path / earlier.FOLDER).exists() and not (run.path / "bests").exists()


def test_the_best_are_those_of_the_lowest_losses(exp, often, monkeypatch) -> None:
    """Losses that rise and fall; the weights are those that stood at each look."""
    losses = iter([9.0] * 12 + [3.0, 1.0, 4.0, 2.0])
    monkeypatch.setattr("stackwise.training.watch.losses_by_exit", lambda *a: [next(losses)])
    exp, kept = exp.replace(optim={"ema": None}), {}

    def on_step(work, numbers) -> None:
        kept[work.at.total_steps] = deepcopy(work.rack)

    run = sw.train(exp, often, on_step=on_step)
    for place, step in ((True, 14), (1, 14), (2, 16)):
        assert same(run.rack(best=place), kept[step])
    with pytest.raises(CheckpointError, match="keeps 2 best, and number 3 is asked for"):
        run.rack(best=3)


def test_no_best_are_kept_where_none_are_asked_for(exp, often) -> None:
    run = sw.train(exp, often.replace(keep_best=0))
    assert not (run.path / "best").exists()
    with pytest.raises(CheckpointError, match="keeps no best weights"):
        run.rack(best=True)
    assert run.result()["bits_per_byte"]


def test_an_earlier_one_can_be_read(exp, often) -> None:
    run = sw.train(exp, often.replace(keep_last=8))
    new, old = run.rack(), run.rack(checkpoint=12)
    assert sorted(old.stacks) == ["s0", "s1", "s2"] and len(new.stacks) == 4
    assert not same(run.rack(checkpoint=15), new)
    with pytest.raises(RunError, match="no checkpoint of step 3; there are: 16, 15, 14, 13"):
        run.rack(checkpoint=3)
    with pytest.raises(ValueError, match="ask for one of both"):
        run.rack(checkpoint=15, best=True)


def same(one, other) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(ours[key].equal(theirs[key]) for key in ours)


def test_damage_is_said_with_the_way_back_and_ends_in_the_same_weights(exp, often, capsys) -> None:
    straight = sw.train(exp, often, rerun=True)
    run = sw.train(
        exp,
        often,
        rerun=True,
        on_step=lambda work, _: setattr(work, "stop_requested", work.at.total_steps == 14),
    )
    assert (run.state, steps(run)) == ("stopped", [14, 13, 12])
    manifest = read_manifest(run.path / "rack")
    flip(run.path / "state" / manifest["parts"]["s3.optimizer"]["file"])
    assert main(["resume", str(run.path)]) != 0
    said = capsys.readouterr().err
    assert "is not what was written" in said
    way = f"{program()} resume {run.path} --from 13, or sw.resume(run, checkpoint=13)"
    assert f"Or go back to the checkpoint of step 13, which is whole: {way}" in said
    assert run.state in ("failed", "stopped") and steps(run)[0] == 14  # nothing went back by itself
    assert main(["resume", str(run.path), "--from", "13"]) == 0
    assert (run.state, run.weights_hash()) == ("finished", straight.weights_hash())
    (event,) = run.events("went_back")
    assert (event["to_step"], event["from_step"]) == (13, 14)
    ours, theirs = run.metrics(), straight.metrics()
    clocks = ["seconds"]
    assert ours.drop(columns=clocks).equals(theirs.drop(columns=clocks))


def test_a_manifest_that_is_gone_is_no_hindrance(exp, often) -> None:
    run = sw.train(exp, often)
    straight = run.weights_hash()
    (run.path / "rack" / MANIFEST).write_text("{")
    assert run.state == "finished"
    assert sw.resume(run, checkpoint=15).weights_hash() == straight
    assert steps(run) == [16, 15, 14]


def test_a_stages_end_serves_too_and_is_made_anew(exp, often) -> None:
    """A file that the last checkpoint and the kept end share is damaged, and both come again."""
    run = sw.train(exp, often.replace(keep_last=1, keep_stages=True))
    straight, file = run.weights_hash(), read_manifest(run.path / "rack")["parts"]["s3"]["file"]
    assert (run.path / "rack" / file).samefile(run.path / "stages/0003/rack" / file)
    flip(run.path / "rack" / file)
    with pytest.raises(CheckpointError, match="is not what was written"):
        sw.resume(run, checkpoint=16)
    assert sw.resume(run, checkpoint=12).weights_hash() == straight
    run.rack(checkpoint=16)
    assert sw.resume(run, checkpoint=16).weights_hash() == straight  # which reads all of it
    assert (run.path / "rack" / file).samefile(run.path / "stages/0003/rack" / file)


def test_a_kill_while_it_goes_back_leaves_a_checkpoint(exp, often, monkeypatch, tmp_path) -> None:
    """At each of the file operations; what is asked again is done."""
    whole = sw.train(exp, often)
    straight, struck = whole.weights_hash(), 0
    while True:
        run = sw.Run(shutil.copytree(whole.path, tmp_path / str(struck)))
        with monkeypatch.context() as patch:
            left = striking(patch, struck)
            with suppress(KeyboardInterrupt):
                earlier.go_back(run, 14)
        assert checkpoints_of(run)[0].step in ((16,) if run.state == "finished" else (14, 16))
        run.rack()
        if left[0] >= 0:
            break
        struck += 1
    assert struck > 10
    assert sw.resume(run, checkpoint=14).weights_hash() == straight


def striking(patch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Interrupt the file operation that comes after so many others; how many are left to come."""
    left = [count]

    def counted(real):
        def operation(*arguments):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(*arguments)

        return operation

    for name in ("replace", "link", "rename"):
        patch.setattr(os, name, counted(getattr(os, name)))
    return left


def test_what_was_left_stays_until_the_next_is_written(exp, often) -> None:
    run = sw.train(exp, often.replace(keep_last=1, keep_best=0, keep_stages=True))
    straight = run.weights_hash()

    def breaks(work, numbers) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sw.resume(run, checkpoint=12, on_step=breaks)
    assert steps(run)[:2] == [16, 16] and (run.state, run.stages_done()) == ("failed", 3)
    assert sw.resume(run, checkpoint=16).weights_hash() == straight


def test_numbers_alone_are_shared_without_any_weights(exp, often, tmp_path) -> None:
    run = sw.train(exp, often.replace(keep_stages=True))
    with zipfile.ZipFile(run.share(tmp_path / "run.zip", weights=False)) as packed:
        names = packed.namelist()
    assert f"{run.id}/stages.json" in names
    assert not [name for name in names if name.endswith((".safetensors", MANIFEST))]


def test_of_a_run_that_trains_no_earlier_one_is_shared(exp, often, tmp_path) -> None:
    """They go while it is packed."""
    target = tmp_path / "run.zip"

    def on_step(work, numbers) -> None:
        if work.at.total_steps == 8:
            work.run.share(target)

    run = sw.train(exp, often, on_step=on_step)
    with zipfile.ZipFile(target) as packed:
        names = packed.namelist()
    assert f"{run.id}/rack/{MANIFEST}" in names and (run.path / earlier.FOLDER).is_dir()
    assert not [name for name in names if "/earlier/" in name or "/bests/" in name]


def test_nothing_goes_back_of_what_is_then_refused(exp, often, capsys) -> None:
    run = sw.train(exp, often)
    assert main(["resume", str(run.path), "--from", "14", "placement.devce=cpu"]) == 2
    assert (run.state, steps(run)) == ("finished", [16, 15, 14])
    (run.path / "link").symlink_to(run.path / "log.txt")
    with pytest.raises(OSError, match="link"):
        earlier.go_back(run, 14)


def test_a_run_that_is_trained_does_not_go_back(exp, often) -> None:
    run = sw.train(exp, often)
    held = lock.take(run.path)
    try:
        with pytest.raises(RunBusy):
            earlier.go_back(run, 14)
    finally:
        held.release()
    assert steps(run) == [16, 15, 14]


def test_fewer_from_here_on_are_fewer(exp, often) -> None:
    stop = 14

    def on_step(work, _) -> None:
        work.stop_requested = work.at.total_steps == stop

    run = sw.train(exp, often, on_step=on_step)
    sw.resume(run, placement={"keep_last": 2})
    assert steps(run) == [16, 15]
    assert all(a > b for a, b in pairwise(steps(run)))
    assert math.isfinite(run.result()["bits_per_byte"])
