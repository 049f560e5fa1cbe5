"""Runs of a study in processes of their own: the same bits, and no run's end is another's.

Only the first test starts processes; the others put in their place what such a process would leave
in the run's folder.
"""

from __future__ import annotations

import pytest

import stackwise as sw
from stackwise.errors import ExperimentError
from stackwise.runs import Run, status
from stackwise.runs.lock import SUPERVISOR, take
from stackwise.study import pool as pools
from stackwise.training.run import Stopped, execute

PLAIN = {"lr_grid": None, "same_bytes": False}
GROW = [{"name": "grow", "by": "one", "init": init} for init in ("copy", "random")]


@pytest.fixture
def two(tiny) -> sw.Experiment:
    return tiny.replace(rack={"stacks": 2}, budget={"tokens": 8 * 4 * 16}, eval={"points": 2})


@pytest.fixture
def study(two, place) -> sw.Study:
    kinds = ["end_to_end", "left_to_right"]
    return sw.Study(two, vary={"curriculum": kinds}, placement=place, **PLAIN)


def here(run, placement, queue) -> None:
    """What a process does, in this one."""
    execute(run)


def dies(run, placement, queue) -> None:
    """What is left of a process that was killed."""
    status.write(run.path, {"state": "running"})


def test_processes_give_the_bits_of_this_one(two, place, tmp_path, monkeypatch) -> None:
    """A curriculum that only this process knows, too: what is executed is a list of stages."""
    stages = [sw.Stage(path=("s0",)), sw.Stage(path=("s0", "s1"), active=("s1",))]
    monkeypatch.setitem(sw.CURRICULA, "mine", lambda exp: stages)
    given = {"vary": {"curriculum": ["end_to_end", "mine"]}, **PLAIN}
    apart = sw.Study(two, placement=place, **given).run(workers=2, threads=1)
    whole = place.replace(runs_dir=str(tmp_path / "whole"), threads=1)
    alone = sw.Study(two, placement=whole, **given).run()
    assert apart.failures == ()
    for (arm, _, one), (_, _, other) in zip(apart.runs, alone.runs, strict=True):
        assert (one.id, one.weights_hash()) == (other.id, other.weights_hash()), arm.name
        assert one.result()["bits_per_byte"] == other.result()["bits_per_byte"]
        assert one.log(), "a process of its own said so in its log"
        opened = one.events("opened")
        assert [event["threads"] for event in opened] == [1]


def test_a_worker_that_dies_is_named_and_the_same_call_takes_it_up(study, monkeypatch) -> None:
    first = study.jobs({})[0].experiment

    def start(run, placement, queue) -> None:
        (dies if run.experiment == first else here)(run, placement, queue)

    monkeypatch.setattr(pools.carry_out_in_pool, "__kwdefaults__", {"on_arm": None, "start": start})
    result = study.run(workers=2)
    assert [run.state for _, _, run in result.runs] == ["died", "finished"]
    (said,) = result.failures
    assert said.startswith("end_to_end, seed 0 (tiny-end_to_end-")
    assert said.endswith("): its process is gone, without a word")
    assert "Some runs hold no result, so nothing is ranked." in result.verdict()
    assert "no result: end_to_end, seed 0" in str(result)
    assert result.summary()["n"].tolist() == [0, 1]
    assert sw.StudyResult.load(study.folder).failures

    defaults = {"on_arm": None, "start": here}
    monkeypatch.setattr(pools.carry_out_in_pool, "__kwdefaults__", defaults)
    again = study.run(workers=2)
    assert again.failures == () and [run.state for _, _, run in again.runs] == ["finished"] * 2


def test_ctrl_c_stops_all_that_run(study, monkeypatch) -> None:
    locks, stopped = {}, []

    def start(run, placement, queue) -> None:
        if locks:
            raise KeyboardInterrupt
        locks[run.id] = take(run.path, SUPERVISOR)
        status.begin(run.path, "queued")

    def stop(run: Run, **_) -> None:
        stopped.append(run.id)
        status.begin(run.path, "stopped")
        locks[run.id].release()

    monkeypatch.setattr(Run, "stop", stop)
    with pytest.raises(Stopped, match="end_to_end stopped and saved; the same study goes on"):
        pools.carry_out_in_pool(study.jobs({}), study.placement, 2, start=start)
    assert stopped == [*locks] and len(stopped) == 1


def test_a_run_waits_for_the_stage_that_it_begins_after(two, place) -> None:
    study = sw.Study(two.replace(rack={"stacks": 3}), vary={"curriculum": GROW}, placement=place,
                     **PLAIN)  # fmt: skip
    held = []

    def start(run, placement, queue) -> None:
        held.append(take(run.path, SUPERVISOR))
        status.begin(run.path, "queued")

    pool = pools.Pool(study.jobs({})[:2], place, None, start)
    pool.begin(pool.ready())
    assert pool.ready() is None, "the first stage is not there yet"
    execute(pool.live[0], through=0)
    assert pool.ready() == 1, "the other stages are not waited for"
    held[0].release()
    assert "forked" in pool.runs.begin(1).provenance()


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "many"])
def test_workers_are_a_number(study, workers) -> None:
    with pytest.raises(ExperimentError) as error:
        study.run(workers=workers)
    assert str(error.value) == (f"workers: {workers!r} must be a whole number over 0, or 'auto'")


def test_steps_are_told_of_in_this_process_alone(study) -> None:
    with pytest.raises(ExperimentError, match="on_step: is called in this process alone"):
        study.run(workers=1, on_step=lambda work, numbers: None)


def test_cores_are_shared_between_workers() -> None:
    assert pools.workers_of("auto", sw.Placement(device="cpu", threads=10**3)) == 1
