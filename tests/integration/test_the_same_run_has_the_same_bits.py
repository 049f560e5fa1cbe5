"""Same experiment, same seed, same machine: same bits, whatever process trains it.

The batch is large enough for torch to split its sums among threads, so that another number of them
gives other bits: these tests fail where a run takes its threads from the process that it is in.
"""

from __future__ import annotations

import threading

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.runs import runs_in

THREADS, THEIRS = 1, 2  # of this process, and of those that it starts if nothing else is said
PLAIN = {"lr_grid": None, "same_bytes": False}


@pytest.fixture
def wide() -> sw.Experiment:
    """Sums of more than 32768 numbers: torch adds up fewer in one piece."""
    return sw.Experiment(
        title="wide",
        rack={"stacks": 1, "blocks_per_stack": 1, "d_model": 32, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 20_000}, "seq_len": 64},
        optim={"batch": 16},
        budget={"tokens": 3 * 1024},
        eval={"points": 1, "windows": 2, "final": 2},
    )


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, str(THEIRS))
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def other(place: sw.Placement, name: str) -> sw.Placement:
    return place.replace(runs_dir=f"{place.runs_dir}-{name}")


def test_in_a_thread_in_a_process_by_the_command_line_and_in_studies(wide, place, tmp_path) -> None:
    found = {"here": sw.train(wide, place)}
    thread = threading.Thread(
        target=lambda: found.update(thread=sw.train(wide, other(place, "thread")))
    )
    thread.start()
    thread.join()

    found["launched"] = sw.launch(wide, other(place, "launched"), queue=False)
    assert found["launched"].wait(60) == "finished"

    (tmp_path / "wide.yaml").write_text(wide.to_yaml())
    there = other(place, "line").runs_dir
    asked = ["placement.device=cpu", f"placement.runs_dir={there}"]
    assert main(["run", str(tmp_path / "wide.yaml"), *asked]) == 0
    (found["command line"],) = runs_in(there)

    for workers in (None, 2):
        where = other(place, f"study{workers}")
        done = sw.Study(wide, placement=where, **PLAIN).run(workers=workers)
        assert not done.failures
        found[f"{workers} workers"] = done.runs[0][2]

    hashes = {name: run.weights_hash() for name, run in found.items()}
    assert set(hashes.values()) == {hashes["here"]}, hashes
    for name, run in found.items():
        assert [event["threads"] for event in run.events("opened")] == [THREADS], name
        assert run.metrics()["loss"].tolist() == found["here"].metrics()["loss"].tolist(), name
        assert run.determinism() == found["here"].determinism()
        assert run.determinism()["promised"] is True


def test_a_run_goes_on_with_the_threads_that_it_was_made_with(wide, place) -> None:
    straight = sw.train(wide, place)

    def stop(work, numbers):
        work.stop_requested = work.at.total_steps == 2

    run = sw.train(wide, place, rerun=True, on_step=stop)
    torch.set_num_threads(THEIRS)
    sw.resume(run)
    assert run.weights_hash() == straight.weights_hash()
    assert run.determinism()["promised"] is True


def test_a_run_that_goes_on_with_others_says_so(wide, place) -> None:
    def stop(work, numbers):
        work.stop_requested = work.at.total_steps == 2

    run = sw.train(wide, place, on_step=stop)
    assert run.determinism()["promised"] is True
    sw.resume(run, placement={"threads": THEIRS})
    promise = run.determinism()
    assert promise["promised"] is False
    assert promise["why_not"] == ["after step 2 threads is 2, was 1"]
    assert promise["same"]["threads"] == THEIRS


def test_workers_that_share_cores_sleep_while_they_wait(monkeypatch) -> None:
    from stackwise.study import pool

    monkeypatch.setattr(pool.os, "cpu_count", lambda: 4)
    cpu = sw.Placement(device="cpu")
    assert [pool.is_crowded(cpu, workers) for workers in (4, 5)] == [False, True]
    two = cpu.replace(threads=2)
    assert [pool.is_crowded(two, workers) for workers in (2, 3)] == [False, True]
