"""A run branches where a stage of another one ended: the same weights and numbers so far."""

from __future__ import annotations

import os
import threading

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.training.kept_stages import kept_stages
from stackwise.training.manifest import CheckpointError, weights_hash
from stackwise.training.run import execute


@pytest.fixture
def exp(tiny) -> sw.Experiment:
    return tiny.replace(curriculum="left_to_right")


@pytest.fixture
def run(exp, place) -> sw.Run:
    return sw.train(exp, place)


def test_with_nothing_changed_it_ends_with_the_same_weights(arm, place) -> None:
    """Whatever the curriculum: only the name differs, which decides no number."""
    whole = sw.train(arm, place)
    for stage in range(len(whole.stages()) - 1):
        forked = whole.fork(after_stage=stage, title=f"again{stage}", launch=False)
        assert forked.id != whole.id and forked.stages_done() == stage + 1
        execute(forked)
        assert weights_hash(forked.path / "rack") == whole.weights_hash()
        assert forked.result()["bits_per_byte"] == whole.result()["bits_per_byte"]


def test_it_begins_with_the_numbers_of_the_stages_that_are_done(run) -> None:
    forked = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    done = sum(run.metrics()["stage"] <= 1)
    assert len(forked.metrics()) == done
    assert forked.metrics().equals(run.metrics().iloc[:done])
    execute(forked)
    old, new = run.metrics(), forked.metrics()
    assert old["step"].tolist() == new["step"].tolist()
    assert old["loss"][:done].tolist() == new["loss"][:done].tolist()
    assert (old["lr"][done:] != new["lr"][done:]).all()
    assert forked.evals()["stage"].tolist() == run.evals()["stage"].tolist()
    then, now = run.memory(), forked.memory()
    assert now[now["stage"] <= 1].equals(then[then["stage"] <= 1])
    assert (now["measured"].notna() == then["measured"].notna()).all()


def test_it_says_what_it_came_from(run) -> None:
    forked = run.fork(after_stage=2, optim={"lr": 1e-3}, seed=3, launch=False)
    said = forked.provenance()["forked"]
    assert (said["run"], said["after_stage"]) == (run.id, 2)
    assert said["changes"] == {"optim.lr": [0.01, 0.001], "seed": [0, 3]}
    assert forked.experiment == run.experiment.replace(optim={"lr": 1e-3}, seed=3)


def test_forked_twice_it_is_one_run(run) -> None:
    one = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    assert run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False).path == one.path
    assert run.fork(after_stage=2, optim={"lr": 1e-3}, launch=False).path != one.path


def test_the_rest_may_follow_another_curriculum(run) -> None:
    forked = run.fork(after_stage=1, curriculum={"name": "grow", "by": "one"}, launch=False)
    assert [stage["active"] for stage in forked.stages()] == [
        ["s0"],
        ["s1"],
        ["s0", "s1", "s2"],
        ["s0", "s1", "s2", "s3"],
    ]
    execute(forked)
    assert forked.state == "finished"


def test_the_old_run_is_as_it_was_and_may_go(run) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    forked = run.fork(after_stage=0, optim={"lr": 1e-3}, launch=False)
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert before == after
    run.delete()
    execute(forked)
    assert forked.state == "finished"


def test_files_that_did_not_change_take_no_room(run) -> None:
    assert kept_stages(run.path) == [0, 1, 2, 3]
    (kept,) = (run.path / "stages" / "0001" / "rack").glob("s0-*")
    (present,) = (run.path / "rack").glob("s0-*")
    assert os.path.samefile(kept, present)


def test_what_the_weights_are_made_for_cannot_change(run) -> None:
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=1, rack={"d_ff": 32}, data={"seq_len": 32}, launch=False)
    assert str(error.value) == (
        "rack.d_ff: 32 is not None; a fork goes on with what is there, so start a new run for "
        "that\n"
        "data.seq_len: 32 is not 16; a fork goes on with what is there, so start a new run for that"
    )


def test_moments_are_of_one_optimizer(tiny, place) -> None:
    kept = {"name": "block_coordinate", "optimizer_state": "keep"}
    run = sw.train(tiny.replace(curriculum=kept), place)
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=1, optim={"name": "lion8bit"}, launch=False)
    assert str(error.value) == (
        "optim.name: 'lion8bit' cannot go on with the moments of adamw; leave it, or fork after "
        "another stage"
    )


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (7, "after_stage: 7 is no stage; there are 0 to 3"),
        (True, "after_stage: True is no stage; there are 0 to 3"),
        (
            3,
            "after_stage: 3 is the last of 4 stages that curriculum=left_to_right makes; nothing "
            "comes after it",
        ),
    ],
)
def test_a_stage_that_nothing_follows(run, stage, said) -> None:
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=stage, launch=False)
    assert str(error.value) == said


def test_a_stage_that_was_not_kept(exp, place) -> None:
    run = sw.train(exp, place.replace(keep_stages=False))
    assert not (run.path / "stages").exists()
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=1, launch=False)
    assert str(error.value) == (
        "after_stage: 1, but its end was not kept, as with placement.keep_stages=false; kept are: "
        "none"
    )


def test_a_kill_between_a_stage_and_keeping_it_is_made_good(exp, place, monkeypatch) -> None:
    from stackwise.training import run as training

    def killed(work) -> None:
        if work.at.stage == 2 and not work.at.step:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "keep_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        sw.train(exp, place)
    monkeypatch.undo()
    (run,) = sw.runs_in(place.runs_dir)
    assert kept_stages(run.path) == []
    sw.resume(run)
    assert kept_stages(run.path) == [1, 2, 3]


def notes(run: sw.Run) -> list[str]:
    return run.provenance()["notes"]


def test_what_is_kept_otherwise_than_the_fork_would_have_it_is_told(run) -> None:
    """The old run froze s1 at its average; a fork that trains it on begins there, and says so."""
    same = run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    assert notes(same) == notes(run)
    other = run.fork(after_stage=1, curriculum={"name": "grow", "by": "one"}, launch=False)
    assert [note for note in notes(other) if note not in notes(run)] == [
        "s1 begins at the moving average of its weights, since it was kept to be frozen"
    ]


def test_moments_that_were_not_kept_are_told(exp, place) -> None:
    visits = {"name": "block_coordinate", "embedding": "never", "head": "never"}
    run = sw.train(exp.replace(curriculum=visits), place)
    change = {"name": "block_coordinate", "optimizer_state": "keep"}
    forked = run.fork(after_stage=0, curriculum=change, launch=False)
    assert "s0 begins with new moments, since the run kept none of it" in notes(forked)


def test_a_stack_that_was_packed_for_good_cannot_train(exp, place) -> None:
    run = sw.train(exp.replace(precision={"frozen": "bf16"}), place)
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=1, curriculum={"name": "grow", "by": "one"}, launch=False)
    assert "s0" in str(error.value) and "train" in str(error.value)


def test_a_stack_that_was_to_train_on_cannot_be_frozen_to_less(exp, place) -> None:
    grown = {"name": "grow", "by": "one"}
    run = sw.train(exp.replace(curriculum=grown, precision={"frozen": "bf16"}), place)
    with pytest.raises(ExperimentError) as error:
        run.fork(after_stage=1, curriculum="left_to_right", launch=False)
    assert str(error.value) == (
        "after_stage: 1, but s0 trains on in the run, and would be frozen to bf16; fork after "
        "another stage\n"
        "after_stage: 1, but s1 trains on in the run, and would be frozen to bf16; fork after "
        "another stage"
    )


def test_damage_of_what_is_kept_is_found_before_a_fork_is_made(run, place) -> None:
    (file,) = (run.path / "stages" / "0001" / "rack").glob("s1-*")
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="is not what was written"):
        run.fork(after_stage=1, optim={"lr": 1e-3}, launch=False)
    assert [found.id for found in sw.runs_in(place.runs_dir)] == [run.id]


def test_many_forks_at_once_are_whole(run) -> None:
    found, threads = [], []
    for n in (1, 2, 1, 2, 3):
        fork = lambda n=n: found.append(  # noqa: E731
            run.fork(after_stage=1, optim={"lr": n * 1e-3}, launch=False)
        )
        threads.append(threading.Thread(target=fork))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 5 and len({fork.id for fork in found}) == 3
    for fork in found:
        assert fork.has_weights() and fork.stages_done() == 2
    assert not list(run.path.parent.glob(".fork-*"))


def test_a_fork_names_where_its_own_beginning_is_to_be_forked(run) -> None:
    forked = run.fork(after_stage=2, title="second", launch=False)
    with pytest.raises(ExperimentError) as error:
        forked.fork(after_stage=0, launch=False)
    assert f"this run began after stage 2 of {run.id}; fork that one" in str(error.value)
