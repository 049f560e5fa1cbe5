"""`stackwise launch | watch | pause | resume | stop | fork | label | share | delete`."""

from __future__ import annotations

import re
import shlex
import time
import zipfile
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.screen import bar, screen, sparkline

LIMIT = 120.0
SMALL = shlex.split(
    "toy title=small curriculum=left_to_right rack.blocks_per_stack=1 rack.d_model=16 "
    "'data.corpus={kind: markov, size_bytes: 40000}' data.seq_len=16 optim.batch=4 "
    "eval.points=2 eval.windows=8 placement.device=cpu placement.threads=1"
)
SHORT, LONG = "budget.tokens=3840", "budget.tokens=10000000"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for run in sw.runs_in("runs"):
        run.stop(now=True)
        run.wait(LIMIT)


def said(capsys, *arguments: str, code: int = 0) -> list[str]:
    assert main(arguments) == code
    return capsys.readouterr().out.splitlines()


def moving(run: sw.Run) -> None:
    deadline = time.monotonic() + LIMIT
    while not (len(run.metrics()) and run.status().get("step")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_is_launched_watched_paused_and_stopped(capsys) -> None:
    first, second = said(capsys, "launch", *SMALL, LONG, "--name", "mine")
    (run,) = sw.runs_in("runs")
    assert first == f"{run.id}: starting"
    assert second.endswith(f"stackwise watch {run.id}")
    moving(run)
    assert said(capsys, "watch", "small", "--once", "--plain")[0].startswith(
        f"{run.id} (mine): running, step "
    )
    said(capsys, "pause", "small")
    while run.state != "paused":
        time.sleep(0.01)
    assert any("mine" in line and "paused" in line for line in said(capsys, "runs"))
    assert said(capsys, "resume", "small") == [f"{run.id}: goes on in its own process"]
    assert said(capsys, "stop", "small")[0].startswith(f"{run.id}: stopped; go on with it")
    assert said(capsys, "stop", "small") == [f"{run.id}: stopped; there is nothing to stop"]


def test_watch_shows_a_run_until_it_ends(capsys) -> None:
    said(capsys, "launch", *SMALL, SHORT)
    lines = said(capsys, "watch", "small", "--plain")
    assert re.fullmatch(r".*: finished, step 60, loss .*, [\d.]+ bits per byte held-out", lines[-1])


def test_watch_ends_with_the_code_of_the_run(capsys) -> None:
    said(capsys, "run", *SMALL, SHORT)
    (run,) = sw.runs_in("runs")
    (run.path / "status.json").write_text("{")
    assert any("damaged" in line for line in said(capsys, "watch", "small", "--once", code=1))


def test_the_screen_shows_stages_losses_and_memory(capsys) -> None:
    said(capsys, "run", *SMALL, SHORT)
    (run,) = sw.runs_in("runs")
    lines = screen(run, 100)
    for number, name in enumerate(["s0", "s1", "s2", "s3"]):
        assert re.match(rf" +{number} {name} +█+ 100%  peak [\d.]+ KiB", lines[2 + number])
    for word in ("loss ", "held ", "depth "):
        assert any(line.startswith(word) for line in lines)
    assert all(len(line) <= 100 for line in lines)


def test_a_curve_has_its_ends_and_what_is_no_number() -> None:
    assert sparkline([0.0, 1.0, 2.0, float("nan"), 7.0], 5) == "▁▂▃x█"
    assert sparkline([1.0] * 100, 10) == "▁" * 10
    assert sparkline([], 10) == "x"
    assert bar(0.5, 4) == "██··"


def test_a_stage_alone_and_a_branch(capsys) -> None:
    said(capsys, "launch", *SMALL, SHORT, "--stage", "0")
    (run,) = sw.runs_in("runs")
    run.wait(LIMIT)
    assert run.stages_done() == 1
    said(capsys, "launch", *SMALL, SHORT, "--stage", "next")
    run.wait(LIMIT)
    assert run.stages_done() == 2
    said(capsys, "resume", "small", "--detach")
    assert run.wait(LIMIT) == "finished"
    lines = said(capsys, "fork", run.id, "0", "optim.lr=1e-3")
    forked = sw.attach(lines[0].partition(":")[0])
    assert forked.wait(LIMIT) == "finished"
    assert forked.provenance()["forked"]["changes"] == {"optim.lr": [0.005, 0.001]}


def test_a_run_is_labelled_shared_and_deleted(capsys, here: Path) -> None:
    said(capsys, "run", *SMALL, SHORT)
    (run,) = sw.runs_in("runs")
    said(capsys, "label", "small", "--name", "first", "--tag", "a", "--tag", "b", "--note", "why")
    assert (run.labels.name, run.labels.tags, run.labels.note) == ("first", ("a", "b"), "why")
    said(capsys, "share", "small", "small.zip")
    with zipfile.ZipFile("small.zip") as packed:
        packed.extractall("elsewhere")
    again = sw.attach(f"elsewhere/{run.id}")
    assert again.metrics().equals(run.metrics())
    assert again.weights_hash() == run.weights_hash()
    said(capsys, "share", "small", "bare.zip", "--no-weights")
    assert Path("bare.zip").stat().st_size < Path("small.zip").stat().st_size
    assert "--yes" in said(capsys, "delete", "small", code=2)[0]
    assert run.path.exists()
    said(capsys, "delete", "small", "--yes")
    assert sw.runs_in("runs") == [] and not list((here / "runs").iterdir())


def test_a_live_run_is_not_deleted(capsys) -> None:
    said(capsys, "launch", *SMALL, LONG)
    (run,) = sw.runs_in("runs")
    assert main(["delete", "small", "--yes"]) == 4
    assert "stop it first, then delete it" in capsys.readouterr().err
    assert run.path.exists()
