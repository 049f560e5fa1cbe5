"""Making, finding and reading runs, from the folder alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from stackwise.runs import Run, RunError, RunWriter, attach, runs_in


def test_making_a_run_again_attaches_and_rerun_makes_another(made) -> None:
    first = made()
    assert made(stages=[]).stages() == first.stages()
    assert [made(rerun=True).id, made(rerun=True).id] == ["toy-1234abcd-2", "toy-1234abcd-3"]


def test_a_run_cut_short_while_it_was_made_is_completed(made, tmp_path) -> None:
    run = made()
    (run.path / "stages.json").unlink()
    assert runs_in(tmp_path / "runs") == []
    assert made().stages() == [{"name": "s0"}, {"name": "s1"}]


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "a b", "a\\b", "a\n", "a" * 129, "ü"]
)
def test_a_name_that_is_not_a_folder_of_its_own_is_refused(made, name) -> None:
    with pytest.raises(RunError) as error:
        made(name)
    assert str(error.value) == (
        f"run id {name!r}: only letters, digits, '.', '_' and '-' are allowed, 128 at most, "
        "the first a letter or digit"
    )


def test_a_folder_that_cannot_hold_runs_is_named(made, tmp_path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError) as error:
        made()
    assert str(error.value) == (
        f"{tmp_path / 'runs'}: cannot hold a new run: File exists; name another folder with "
        "placement.runs_dir"
    )


def test_nothing_in_a_made_run_is_an_absolute_path(made, tmp_path, monkeypatch) -> None:
    data = tmp_path / "data" / "text.txt"
    program = str(tmp_path / "bin" / "stackwise")
    outside = f"{os.sep}elsewhere{os.sep}b.txt"
    argv = [program, "run", "toy", f"data=text:{data}", f"x={outside}", "a/b=c", "hf://x/y"]
    monkeypatch.setattr(sys, "argv", argv)
    run = made()
    assert run.provenance()["command"] == [
        "stackwise",
        "run",
        "toy",
        "data=text:../../data/text.txt",
        "x=b.txt",
        "a/b=c",
        "hf://x/y",
    ]
    for path in run.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_provenance_says_code_versions_and_machine(made) -> None:
    found = made().provenance()
    assert found["seed"] == 0 and found["data"] == "abc"
    assert found["packages"]["torch"] and found["threads"] >= 1 and found["torch"]["build"]
    assert set(found) >= {"made", "python", "system", "processor", "cores", "device", "code"}


def test_attach_takes_a_folder_an_id_or_its_beginning(made, tmp_path) -> None:
    runs = tmp_path / "runs"
    made(), made(rerun=True), made("grow-99")
    assert attach(runs / "grow-99").id == attach("grow-99", runs).id == attach("gr", runs).id
    assert attach("toy-1234abcd", runs).id == "toy-1234abcd"


def test_an_unknown_or_ambiguous_run_lists_what_there_is(made, tmp_path) -> None:
    runs = tmp_path / "runs"
    made(), made(rerun=True), made("grow-99")
    with pytest.raises(RunError) as error:
        attach("to", runs)
    assert str(error.value) == (
        f"to: 2 runs begin so in {runs}; there are: toy-1234abcd, toy-1234abcd-2"
    )
    with pytest.raises(RunError) as error:
        attach("x" * 300, runs / "empty")
    assert str(error.value) == f"{'x' * 300}: no such run in {runs / 'empty'}; there are: none"
    with pytest.raises(RunError) as error:
        Run(runs)
    assert str(error.value) == f"{runs}: is not a run (it has no stages.json)"


def test_runs_are_listed_newest_first_and_strangers_left_out(made, tmp_path) -> None:
    runs = tmp_path / "runs"
    for age, name in enumerate(["c", "a", "b"]):
        when = time.time() - age
        os.utime(made(name).path / "stages.json", (when, when))
    (runs / "notes.txt").write_text("mine")
    (runs / "empty").mkdir()
    assert [run.id for run in runs_in(runs)] == ["c", "a", "b"]


def test_states_follow_the_writer(made) -> None:
    run = made()
    assert (run.state, run.status()) == ("made", {})
    with RunWriter(run.path) as writer:
        assert run.state == "running"
        writer.status(stage=1, loss=2.5)
        writer.metric({"step": 1, "loss": 2.5})
        writer.flush()
        assert len(run.metrics()) == 1
        writer.close("stopped")
    assert run.state == "stopped"
    assert run.status()["loss"] == 2.5 and run.status()["pid"] == os.getpid()
    with pytest.raises(ZeroDivisionError), RunWriter(run.path) as writer:
        raise ZeroDivisionError("oh")
    assert run.state == "failed"
    assert run.events("failed")[0]["error"] == "ZeroDivisionError: oh"
    with pytest.raises(KeyboardInterrupt), RunWriter(run.path) as writer:
        raise KeyboardInterrupt
    assert run.state == "stopped"
    with RunWriter(run.path) as writer:
        writer.metric({"step": 2, "loss": 1.5})
    assert run.state == "finished" and writer.attempt == 4
    assert list(run.metrics()["loss"]) == [2.5, 1.5]
    assert (run.path / "metrics.parquet").exists()
    assert [event["seq"] for event in run.events()] == list(range(4))


def test_the_heartbeat_goes_on_and_writes_rows_while_a_step_lasts(made, monkeypatch) -> None:
    monkeypatch.setattr("stackwise.runs.writer.HEARTBEAT_SECONDS", 0.01)
    run = made()
    with RunWriter(run.path) as writer:
        writer.metric({"step": 1, "loss": 2.5})
        first = run.status()["heartbeat"]
        deadline = time.monotonic() + 30
        while len(run.metrics()) == 0 or run.status()["heartbeat"] == first:
            assert time.monotonic() < deadline
    assert list(run.metrics()["step"]) == [1]


def test_a_full_disk_at_the_end_neither_hides_the_first_error_nor_keeps_the_run(
    made, full_disk
) -> None:
    run = made()
    writer = RunWriter(run.path).__enter__()
    writer.metric({"step": 1})
    error = ZeroDivisionError("oh")
    with full_disk(0):
        writer.__exit__(type(error), error, None)
    assert run.state == "died"
    with RunWriter(run.path) as writer:
        assert writer.attempt == 2


def test_evals_are_a_frame_in_which_each_step_counts_once(made) -> None:
    run = made()
    assert len(run.evals()) == 0 and "loss" in run.evals()
    for losses in ({1: 3.0, 2: float("nan")}, {2: 2.0, 3: 1.0}):
        with RunWriter(run.path) as writer:
            for step, loss in losses.items():
                writer.event("eval", stage=0, step=step, loss=loss)
            writer.close("stopped")
    assert list(run.evals()["loss"]) == [3.0, 2.0, 1.0]


def test_memory_lays_what_was_measured_beside_what_was_predicted(made) -> None:
    run = made()
    with RunWriter(run.path) as writer:
        writer.event("memory", stage=0, weights=8, peak=99)
    rows = run.memory()
    assert list(rows["category"]) == ["weights", "peak"]
    assert list(rows["measured"]) == [8, 99]


def test_a_summary_names_damage_and_never_raises(made) -> None:
    run = made()
    assert run.summary()["state"] == "made" and run.summary()["stages"] == 2
    with RunWriter(run.path) as writer:
        writer.status(stage=1, step=8, loss=1.0)
        writer.event("result", bits_per_byte=2.5, flops=1e9)
    found = run.summary()
    assert (found["state"], found["step"], found["bits_per_byte"]) == ("finished", 8, 2.5)
    assert 0 <= found["heartbeat_age_seconds"] < 60 and found["problem"] is None
    (run.path / "status.json").write_text("{")
    way_out = "restore it from a copy of the run, or train again (rerun=True, --rerun)"
    assert run.state == run.summary()["state"] == "damaged"
    assert run.summary()["problem"] == (
        "run toy-1234abcd: status.json is damaged; nothing but this is lost: resume the run, and "
        "it is written anew"
    )
    (run.path / "plan.json").unlink()
    with pytest.raises(RunError) as error:
        run.plan()
    assert str(error.value) == f"run toy-1234abcd: plan.json is missing; {way_out}"


def test_a_moved_run_says_the_same(made, tmp_path) -> None:
    run = made()
    with RunWriter(run.path) as writer:
        writer.metric({"step": 1, "loss": 1.0})
    shutil.move(run.path, tmp_path / "elsewhere")
    moved = attach(tmp_path / "elsewhere")
    assert (moved.id, moved.state, len(moved.metrics())) == ("elsewhere", "finished", 1)


def test_a_hundred_runs_of_eighty_layers_list_in_a_second(made, tmp_path) -> None:
    stages = [{"name": f"s{n}", "path": [f"s{i}" for i in range(n + 1)]} for n in range(80)]
    run = made("run-0", stages=stages)
    with RunWriter(run.path) as writer:
        for step in range(10):
            writer.event("eval", step=step, exit_losses=[1.0] * 81)
        writer.event("result", bits_per_byte=2.0)
        writer.close("stopped")
    for n in range(1, 100):
        shutil.copytree(run.path, tmp_path / "runs" / f"run-{n}")
    began = time.process_time()
    found = [run.summary() for run in runs_in(tmp_path / "runs")]
    assert time.process_time() - began < 1
    assert all(summary["bits_per_byte"] == 2.0 for summary in found) and len(found) == 100


def test_reading_runs_loads_neither_torch_nor_pandas() -> None:
    code = "import sys, stackwise.runs; print({'torch', 'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def refuse(writer, *, last=False) -> None:
    raise OSError(28, "No space left on device")


def test_a_run_that_could_not_say_that_it_began_is_free_again(made, monkeypatch) -> None:
    run = made()
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "_write_status", refuse)
        with pytest.raises(OSError), RunWriter(run.path):
            pass
    with RunWriter(run.path):
        assert run.state == "running"
