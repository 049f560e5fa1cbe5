"""A run with a streamed, quantised trunk in a process of its own, looked at and taken out again."""

from __future__ import annotations

import subprocess
import sys

import stackwise as sw
from stackwise.cli import main
from stackwise.cli.settings import settings
from stackwise.training.start import create_run

KEYS = """
    placement.trunk=streamed precision.frozen=nf4 curriculum=left_to_right objective=clm
    rack.d_model=32 rack.heads=2 rack.blocks_per_stack=1 data.corpus=markov data.seq_len=16
    optim.batch=4 budget.tokens=1024 eval.windows=8 eval.points=2 eval.final=8
    placement.device=cpu
"""


def test_run_eval_sample_export(tmp_path, monkeypatch, capsys) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stackwise", "run", "toy", *KEYS.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "bits per byte held-out" in done.stdout
    monkeypatch.chdir(tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    run = sw.Run(folder)
    assert [event["format"] for event in run.events("frozen")] == ["nf4"] * 3
    assert main(["eval", run.id]) == 0
    assert main(["sample", run.id, "a"]) == 0
    assert main(["export", run.id, "out"]) == 0
    assert "of 3 stacks what freezing to less has left" in capsys.readouterr().out
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert main(["run", "toy", *KEYS.split(), "placement.cache_gb=1"]) == 2
    assert capsys.readouterr().err == (
        "stackwise: placement.cache_gb: 1.0 is not read with trunk=streamed; leave it empty\n"
    )


def test_a_finished_run_says_that_another_placement_has_no_effect(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    science = [key for key in KEYS.split() if not key.startswith("placement.")]
    assert main(["run", "toy", *science, "placement.device=cpu"]) == 0
    (run,) = sw.runs_in("runs")
    assert "finished already" not in capsys.readouterr().out
    note = (
        "note: it is finished already, so placement.threads, placement.trunk had no effect; "
        "run --rerun trains it again\n"
    )
    change = ["placement.trunk=streamed", "placement.threads=1", "placement.device=cpu"]
    for call in (["run", "toy", *science, "placement.device=cpu"], ["resume", run.id]):
        assert main(call) == 0
        assert "finished already" not in capsys.readouterr().out
        assert main([*call, *change]) == 0
        said = capsys.readouterr().out
        assert note in said
        assert "bits per byte held-out" in said
    assert sw.Placement.load(run.path / "placement.yaml").trunk == "recompute"


def test_a_run_goes_on_as_it_was_placed_where_nothing_else_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    exp, placement = settings("toy", KEYS.split())
    run = create_run(exp, placement)
    science = [key for key in KEYS.split() if not key.startswith("placement.")]
    assert main(["run", "toy", *science]) == 0
    assert (run.state, run.events("placement_changed")) == ("finished", [])
    assert sw.Placement.load(run.path / "placement.yaml").trunk == "streamed"
