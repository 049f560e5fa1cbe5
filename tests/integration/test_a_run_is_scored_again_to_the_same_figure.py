"""`evaluate_run` and `stackwise eval` reproduce a run's reported figure to the last bit."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest
import torch

import stackwise as sw
from stackwise.cli import main
from stackwise.training.score import evaluate_run
from stackwise.training.start import TrainingError


def reported(run: sw.Run) -> dict:
    return {key: run.result()[key] for key in ("bits_per_byte", "nats_per_token", "stderr")}


def found(run: sw.Run, **choices) -> dict:
    score = asdict(evaluate_run(run, **choices))
    return {key: score[key] for key in reported(run)}


def test_every_curriculum_is_scored_as_it_was(arm, place) -> None:
    run = sw.train(arm, place)
    assert found(run) == reported(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 3, "eval.draws": 3},
        {"precision.compute": "bfloat16"},
        {"objective": "clm", "precision.compute": "bfloat16"},
        {"objective": "mlm"},
        {"eval.final": 5},
    ],
    ids=str,
)
def test_with_its_own_seed_draws_and_precision(tiny, place, changes) -> None:
    run = sw.train(tiny.replace(**changes), place)
    assert found(run) == reported(run)


def test_some_windows_are_scored_where_the_experiment_says_so(tiny, place) -> None:
    whole, some = (sw.train(tiny.replace(eval={"final": n}), place) for n in (None, 5))
    assert whole.weights_hash() == some.weights_hash()
    assert some.result()["tokens"] == 5 * 16 < whole.result()["tokens"]
    assert some.result()["probe_flops"] < whole.result()["probe_flops"]  # what they cost is counted


def test_with_the_threads_that_it_was_trained_with(tiny, place) -> None:
    before = torch.get_num_threads()
    run = sw.train(tiny, place.replace(threads=2))
    assert found(run) == reported(run)
    assert torch.get_num_threads() == before


def test_options_override(tiny, place) -> None:
    run = sw.train(tiny, place)
    assert found(run, seed=1) != reported(run)
    assert found(run, draws=3)["stderr"] < reported(run)["stderr"]


def test_the_command_line_says_it(tiny, place, capsys) -> None:
    run = sw.train(tiny.replace(seed=5), place)
    assert main(["eval", str(run.path)]) == 0
    said = capsys.readouterr().out
    result = run.result()
    assert said.startswith(
        f"{result['bits_per_byte']:.4f} ± {result['stderr']:.4f} bits per byte, "
        f"{result['nats_per_token']:.4f} nats per token, "
    )
    assert main(["eval", str(run.path), "--seed", "1", "--draws", "2", "--device", "cpu"]) == 0
    assert capsys.readouterr().out != said


def test_a_stopped_run_is_scored_at_its_average(tiny, place) -> None:
    def on_step(work, numbers):
        work.stop_requested = work.at.total_steps == 6

    run = sw.train(tiny, place, on_step=on_step)
    assert evaluate_run(run) != evaluate_run(run, raw=True)


def test_a_changed_corpus_is_refused(tiny, place, tmp_path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 200)
    run = sw.train(tiny.replace(data={"corpus": f"text:{text}"}), place)
    text.write_text("entirely different words stand here now, and many of them. " * 200)
    said = (
        rf"^run {re.escape(run.id)}: the corpus has changed since the run began: \S+text\.txt "
        r"\(11800 bytes, was 9000, fingerprint [0-9a-f]{12}, was [0-9a-f]{12}\); put the old file "
        r"back, or start a new run$"
    )
    with pytest.raises(TrainingError, match=said):
        evaluate_run(run)
    assert main(["eval", str(run.path)]) == 6
    assert "the corpus has changed" in capsys.readouterr().err


def test_scoring_needs_no_room_to_train(tiny, place, monkeypatch) -> None:
    run = sw.train(tiny, place)
    monkeypatch.setattr("stackwise.memory.room.machine_bytes", lambda: 1 << 10)
    assert found(run) == reported(run)
