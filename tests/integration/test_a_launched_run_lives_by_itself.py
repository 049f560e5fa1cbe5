"""A launched run has processes of its own: it obeys, waits for its turn, and tells its end.

What it is asked takes effect between two steps, so that none of these tests hangs on how fast the
machine is; the time limits only end a test that fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

import stackwise as sw
from stackwise.detached import device_queue
from stackwise.errors import ExperimentError
from stackwise.jsontext import loads
from stackwise.report import called
from stackwise.runs.lock import LOCK, SUPERVISOR, owner_of

LIMIT = 120.0


@pytest.fixture
def long(tiny) -> sw.Experiment:
    """A run that nobody waits for to end by itself."""
    return tiny.replace(budget={"tokens": 10_000_000}, curriculum="left_to_right")


@pytest.fixture(autouse=True)
def ended(place):
    """No process outlives its test."""
    yield
    for run in sw.runs_in(place.runs_dir):
        run.stop(now=True)
        assert run.wait(LIMIT) not in ("running", "paused", "queued", "starting")


def until(what, why: str = "") -> None:
    deadline = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.01)


def steps(run: sw.Run) -> int:
    return len(run.metrics())


def test_it_ends_with_the_weights_of_a_run_in_this_process(tiny, place, tmp_path) -> None:
    launched = sw.launch(tiny, place.replace(threads=1))
    assert launched.wait(LIMIT) == "finished"
    here = sw.train(tiny, place.replace(threads=1, runs_dir=str(tmp_path / "here")))
    assert launched.id == here.id
    assert launched.weights_hash() == here.weights_hash()
    assert loads((launched.path / "exit.json").read_text())["code"] == 0


def test_it_pauses_goes_on_and_stops_between_two_steps(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    run.pause()
    until(lambda: run.state == "paused")
    held = run.status()["step"]
    assert run.has_weights()  # a paused run is a saved one
    time.sleep(0.3)
    assert run.status()["step"] == held
    run.resume()
    until(lambda: run.status()["step"] > held)
    run.stop()
    assert run.wait(LIMIT) == "stopped"
    assert [event["command"] for event in run.events("asked")] == ["pause", "resume", "stop"]
    assert run.status()["obeyed"] == 3
    assert run.what_now() == (
        f"go on with it: sw.attach({str(run.path)!r}).resume(), or stackwise resume {called(run)}"
    )


def test_stopped_and_gone_on_with_it_ends_with_the_same_weights(tiny, place, tmp_path) -> None:
    tiny = tiny.replace(budget={"tokens": 200 * 64})
    run = sw.launch(tiny, place.replace(threads=1))
    until(lambda: steps(run) > 2 or run.state == "finished")
    run.stop()
    run.wait(LIMIT)
    assert run.resume().wait(LIMIT) == "finished"
    here = sw.train(tiny, place.replace(threads=1, runs_dir=str(tmp_path / "here")))
    assert run.weights_hash() == here.weights_hash()


def test_a_stop_now_loses_no_more_than_the_steps_since_the_last_checkpoint(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    run.pause()
    until(lambda: run.state == "paused")
    saved = run.status()["step"]
    run.resume()
    until(lambda: run.status()["step"] > saved)
    run.stop(now=True)
    assert run.wait(LIMIT) == "stopped"
    again = run.resume()
    until(lambda: again.events("resumed"))
    assert again.events("resumed")[0]["step"] == saved


def test_launched_twice_it_is_one_run(long, place) -> None:
    first = sw.launch(long, place)
    second = sw.launch(long, place)
    assert first.path == second.path
    until(lambda: steps(first) > 0)
    assert first.status()["attempt"] == 1
    assert owner_of(first.path, LOCK) == owner_of(second.path, LOCK)


def test_two_launchers_at_once_start_one(long, place) -> None:
    code = (
        "import sys, stackwise as sw;"
        "e = sw.Experiment.load(sys.argv[1]); p = sw.Placement.load(sys.argv[2]);"
        "print(sw.launch(e, p).path)"
    )
    files = [f"{place.runs_dir}-exp.yaml", f"{place.runs_dir}-place.yaml"]
    for file, value in zip(files, (long, place), strict=True):
        with open(file, "w", encoding="utf-8") as out:
            out.write(value.to_yaml())
    command = [sys.executable, "-c", code, *files]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {child.communicate(timeout=LIMIT)[0] for child in started}
    assert len(said) == 1
    (run,) = sw.runs_in(place.runs_dir)
    until(lambda: steps(run) > 0)
    time.sleep(0.5)
    assert len(list((run.path / "metrics").glob("*.arrows"))) == 1


def test_the_second_on_a_device_waits_for_the_first(long, place) -> None:
    first = sw.launch(long, place)
    second = sw.launch(long.replace(seed=1), place)
    until(lambda: second.state == "queued")
    assert second.status()["waits_for"] == [first.id]
    assert not second.events()
    first.stop()
    until(lambda: steps(second) > 0)
    assert first.state == "stopped"


def test_one_that_waits_may_leave(long, place) -> None:
    sw.launch(long, place)
    second = sw.launch(long.replace(seed=1), place)
    until(lambda: second.state == "queued")
    second.stop()
    assert second.wait(LIMIT) == "stopped"
    assert not second.events()


def test_it_waits_for_one_that_trains_in_a_foreign_process(long, place) -> None:
    with device_queue.holding("cpu", place_of(place)):
        run = sw.launch(long, place)
        until(lambda: run.state == "queued")
    until(lambda: steps(run) > 0)


def test_it_may_be_told_not_to_wait(long, place) -> None:
    with device_queue.holding("cpu", place_of(place)):
        run = sw.launch(long, place, queue=False)
        until(lambda: steps(run) > 0)


def kill_owner(run: sw.Run, lock: str) -> None:
    """Kill the process that holds a lock of a run."""
    owner = owner_of(run.path, lock)
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)


def place_of(place: sw.Placement):
    from pathlib import Path

    return Path(place.runs_dir)


def test_a_dead_one_says_so_and_goes_on(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    kill_owner(run, LOCK)
    assert run.wait(LIMIT) == "died"
    assert run.error() == (
        "its process was ended by SIGKILL, as the system does when memory runs out"
    )
    assert "stackwise resume" in str(run.what_now())
    taken = steps(run)
    run.resume()
    until(lambda: steps(run) > taken)
    assert run.events("lock_taken_over")


def test_it_goes_on_without_its_supervisor(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    kill_owner(run, SUPERVISOR)
    taken = steps(run)
    until(lambda: steps(run) > taken)
    run.stop()
    assert run.wait(LIMIT) == "stopped"


def test_what_hangs_is_interrupted_then_killed(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    owner = owner_of(run.path, LOCK)
    assert owner is not None
    os.kill(owner.pid, signal.SIGSTOP)  # it cannot even answer an interrupt
    run.stop(patience=0.1)
    assert run.wait(LIMIT) == "stopped"
    log = "\n".join(run.log())
    assert "is interrupted" in log and "is killed" in log
    assert loads((run.path / "exit.json").read_text())["code"] == -signal.SIGKILL


def test_what_cannot_begin_has_failed_and_says_why(long, place, tmp_path) -> None:
    text = tmp_path / "book.txt"
    text.write_text("In the beginning " * 4000)
    exp = long.replace(data={"corpus": f"text:{text}"})
    run = sw.launch(exp, place)
    until(lambda: steps(run) > 0)
    run.stop()
    run.wait(LIMIT)
    text.write_text("something else " * 5000)
    run.resume()
    assert run.wait(LIMIT) == "failed"
    assert "the corpus has changed since the run began" in str(run.error())
    assert any("Traceback" in line for line in run.log())


def test_a_stage_is_launched_alone_and_then_the_next(tiny, place, tmp_path) -> None:
    exp = tiny.replace(curriculum="left_to_right")
    place = place.replace(threads=1)
    with pytest.raises(ExperimentError) as error:
        sw.launch(exp, place, stages=[1])
    assert str(error.value) == ("stages: 1 comes after 0, and none is done; give stages=[0, 1]")
    run = sw.launch(exp, place, stages=[0])
    assert run.wait(LIMIT) == "stopped"
    assert run.stages_done() == 1
    assert sw.launch(exp, place, stages=[0]).stages_done() == 1
    run = sw.launch(exp, place, stages=[1, 2, 3])
    assert run.wait(LIMIT) == "finished"
    whole = sw.train(exp, place.replace(runs_dir=str(tmp_path / "here")))
    assert run.weights_hash() == whole.weights_hash()


def test_what_only_this_process_knows_is_refused(long, place) -> None:
    from stackwise.schedules import SCHEDULES, Schedule, TimeSchedule

    class Sqrt(sw.Params):
        name: str = "sqrt"

    def sqrt(params: Sqrt) -> TimeSchedule:
        return TimeSchedule(lambda t: 1 - t**0.5, lambda t: 0.5 / t, lambda lam: lam**2)

    SCHEDULES["sqrt"] = Schedule(sqrt, Sqrt)
    try:
        with pytest.raises(ExperimentError) as error:
            sw.launch(long.replace(masking={"schedule": "sqrt"}), place)
    finally:
        del SCHEDULES["sqrt"]
    assert str(error.value) == (
        "masking.schedule: 'sqrt' is known to this process alone, and a launched run has one of "
        "its own; name the file that registers it with code= (--code), or train it here with "
        "sw.train"
    )


def test_a_curriculum_of_a_cell_is_no_hindrance(tiny, place) -> None:
    def outside_in(exp):
        ids = sw.stack_ids(exp.rack)
        yield sw.Stage(path=(ids[0], ids[-1]))
        yield sw.Stage(path=ids, active=ids[1:-1], embedding=False)

    sw.CURRICULA["outside_in"] = outside_in
    try:
        run = sw.launch(tiny.replace(curriculum="outside_in"), place)
    finally:
        del sw.CURRICULA["outside_in"]
    assert run.wait(LIMIT) == "finished"
    assert [stage["path"] for stage in run.stages()] == [["s0", "s3"], ["s0", "s1", "s2", "s3"]]


def test_a_warm_process_takes_the_first_run_and_ends_with_its_maker(tiny, place) -> None:
    sw.warm()
    sw.warm()
    from stackwise.detached import warm

    (pair,) = warm._ready
    run = sw.launch(tiny, place)
    owner = owner_of(run.path, SUPERVISOR)
    assert owner is not None and owner.pid == pair.pid
    assert run.wait(LIMIT) == "finished"
    code = "import stackwise as sw; from stackwise.detached import warm; sw.warm();" + (
        "print(warm._ready[0].pid, flush=True)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT
    )
    until(lambda: not os.path.exists(f"/proc/{int(said.stdout)}"), "it outlives its maker")


def test_a_stop_that_is_taken_up_may_save_as_long_as_it_needs(long, place, monkeypatch) -> None:
    """The supervisor presses what does not take up a stop, and nothing that does."""
    folder = str(place.runs_dir) + "-slow"
    os.makedirs(folder)
    with open(os.path.join(folder, "sitecustomize.py"), "w", encoding="utf-8") as file:
        file.write(SLOW)
    monkeypatch.setenv("PYTHONPATH", folder)
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    run.stop(patience=0.2)
    assert run.wait(LIMIT) == "stopped"
    assert run.has_weights() and "interrupted" not in "\n".join(run.log())
    taken = steps(run)
    monkeypatch.delenv("PYTHONPATH")
    run.resume()
    until(lambda: run.events("resumed"))
    assert run.events("resumed")[0]["step"] == taken


SLOW = """
import importlib.abc, sys, time


class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "stackwise.training.obeying":
            from stackwise.training import saved

            save = saved.save_work

            def slow(work, trainee):
                time.sleep(3)
                save(work, trainee)

            saved.save_work = slow


sys.meta_path.insert(0, Slow())
"""


def test_what_is_asked_after_a_stop_comes_after_it(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    run.stop()
    run.resume()
    until(lambda: run.events("resumed"))
    until(lambda: run.status().get("attempt") == 2 and run.state == "running")
    run.stop()
    again = sw.launch(long, place)
    until(lambda: len(again.events("resumed")) == 2)


def test_all_stages_may_be_asked_for_while_one_trains(tiny, place) -> None:
    exp = tiny.replace(curriculum="left_to_right", budget={"tokens": 400 * 64})
    run = sw.launch(exp, place, stages=[0])
    sw.launch(exp, place)
    assert run.wait(LIMIT) == "finished"
    assert run.status()["attempt"] == 2


def test_a_run_whose_supervisor_died_keeps_its_turn_and_can_be_stopped_now(long, place) -> None:
    run = sw.launch(long, place)
    until(lambda: steps(run) > 2)
    kill_owner(run, SUPERVISOR)
    second = sw.launch(long.replace(seed=1), place)
    until(lambda: second.state == "queued")
    assert second.status()["waits_for"] == [run.id]
    run.stop(now=True)
    assert run.wait(LIMIT) == "stopped"
    until(lambda: steps(second) > 0)


def test_one_that_does_not_wait_is_waited_for(long, place) -> None:
    first = sw.launch(long, place, queue=False)
    until(lambda: steps(first) > 0)
    second = sw.launch(long.replace(seed=1), place)
    until(lambda: second.state == "queued")


def test_without_a_queue_it_trains_all_the_same(tiny, place, tmp_path, monkeypatch) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "queue").write_text("a file")
    monkeypatch.setenv("STACKWISE_CACHE", str(tmp_path / "cache"))
    run = sw.launch(tiny, place)
    assert run.wait(LIMIT) == "finished"
    assert "waits for no other run" in "\n".join(run.log())


def test_one_that_was_taken_over_while_it_waited_says_nothing_of_it(tiny, place) -> None:
    with device_queue.holding("cpu", place_of(place)):
        run = sw.launch(tiny, place)
        until(lambda: run.state == "queued")
        sw.resume(run)
        assert run.state == "finished"
    assert run.wait(LIMIT) == "finished"
    assert len(run.events("result")) == 1 and run.error() is None
