"""What `stackwise watch` shows of a folder of a stranger: never an error, never an escape."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.runs import RunWriter, following
from stackwise.runs.following import Follower
from stackwise.screen import one_line, screen

RUNS = Path(__file__).parents[3] / "data" / "runs"


@pytest.fixture
def run(tmp_path) -> sw.Run:
    (shipped,) = RUNS.glob("*left_to_right*")
    return sw.Run(shutil.copytree(shipped, tmp_path / shipped.name))


DAMAGED = [
    ("status.json", '{"state": "running", "stage": "x"}'),
    ("status.json", '{"state": "finished", "stage": [1]}'),
    ("events.jsonl", '{"kind": "memory"}\n{"kind": "result", "bits_per_byte": 1.0}\n'),
    ("events.jsonl", '{"kind": "eval", "step": 1, "attempt": 1}\n{"kind": "result", "x": 1}\n'),
    ("stages.json", "[1, 2]"),
    ("stages.json", '[{"name": 5, "tokens": "x"}]'),
    ("experiment.yaml", "{"),
]
LINES = [
    ("status.json", '{"state": "queued", "waits_for": 5}'),
    ("status.json", '{"state": "finished", "step": {"a": 1}}'),
    ("status.json", "{"),
    ("events.jsonl", '{"kind": "result"}\n'),
]


@pytest.mark.parametrize(("name", "text"), [*DAMAGED, *LINES])
def test_damage_is_said(run, name, text) -> None:
    (run.path / name).write_text(text)
    first, *rest = screen(run)
    assert first == f"{run.id}: damaged" and rest and all(rest)


@pytest.mark.parametrize(("name", "text"), LINES)
def test_so_it_is_in_one_line(run, name, text) -> None:
    (run.path / name).write_text(text)
    assert one_line(run).startswith(f"{run.id}: damaged: ")


def test_no_text_of_the_folder_is_obeyed_by_the_terminal(run) -> None:
    evil = "\x1b[2J\x9b31m\r\u202eevil"
    renamed = run.path.rename(run.path.with_name(f"run{evil}"))
    run = sw.Run(renamed)
    stages = run.stages()
    stages[0]["name"] = evil
    (run.path / "stages.json").write_text(json.dumps(stages))
    (run.path / "labels.json").write_text(json.dumps({"name": evil}))
    (run.path / "log.txt").write_text(f"{evil}\n")
    for state in ("finished", "failed"):
        (run.path / "status.json").write_text(json.dumps({"state": state, "waits_for": [evil]}))
        (run.path / "exit.json").write_text(json.dumps({"error": f"{evil}\n{evil}"}))
        for line in (*screen(run, 200), one_line(run)):
            assert line.isprintable() and (not line or "\n" not in line)
    assert any(line.startswith("failed: ") for line in screen(run, 200))


def test_a_reading_that_goes_on_shows_what_a_first_one_does(made) -> None:
    run = made(
        experiment=sw.Experiment().to_yaml(),
        stages=[{"name": "a", "tokens": 100_000}, {"name": "b", "tokens": 100_000}],
    )
    seen = Follower(run.path)
    for attempt in range(2):
        with RunWriter(run.path) as writer:
            for step in range(1 + 3 * attempt, 9):
                row = {"step": step, "stage": step // 5, "stage_step": step - 4 * (step // 5)}
                writer.metric({**row, "loss": 1 / step})
                writer.flush()
                assert screen(run, 80, seen)[2:] == screen(run)[2:]
    by_stage = run.metrics().groupby("stage")["stage_step"].max()
    tokens = run.experiment.optim.batch * run.experiment.data.seq_len
    for stage, line in enumerate(screen(run)[2:4]):
        assert f" {by_stage[stage] / (100_000 // tokens):4.0%}" in line


def test_what_was_read_is_not_read_again(run, monkeypatch) -> None:
    seen = Follower(run.path)
    screen(run, 80, seen)
    assert seen.count == len(run.metrics())

    def again(*what):
        raise AssertionError("read again")

    monkeypatch.setattr(following.Follower, "_take", again)
    monkeypatch.setattr(following.Follower, "_take_event", again)
    assert screen(run, 80, seen)[0].startswith(f"{run.id}: finished")
