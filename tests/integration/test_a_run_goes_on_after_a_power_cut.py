"""A run, its fork and its prepared text after a power cut: they go on to the same weights.

All of it is recorded once, with several checkpoints and several best weights kept, stopped and gone
on with, and forked from a stage's end. Power fails at drawn moments; what may be left by the model
in `tests/power.py` is opened, and then trained to its end. That every state opens as the old or the
new checkpoint is in `test_a_power_cut_leaves_a_whole_checkpoint.py`.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.training.forking import fork
from stackwise.training.run import execute
from stackwise.training.start import create_run

from ..power import Disk, Note, Recorder, State, crashes, lay

CUTS, SEED = 5, 3
EXPERIMENT = sw.Experiment(
    title="t",
    rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
    data={"corpus": {"kind": "markov", "size_bytes": 3000}, "seq_len": 8},
    optim={"batch": 2, "lr": 0.01, "ema": 0.9},
    budget={"tokens": 12 * 2 * 8},
    eval={"points": 6, "windows": 2, "draws": 1, "final": 2},
    curriculum={"name": "left_to_right", "optimizer_state": "copy"},
)
NUMBERS = ["step", "loss", "grad_norm", "flops"]


@dataclass
class Life:
    """What was recorded, and what it came to: a run and its fork."""

    notes: list[Note]
    ends: list[tuple[str, str]]


def placed(home: Path) -> sw.Placement:
    return sw.Placement(
        runs_dir=str(home / "runs"), device="cpu", checkpoint_seconds=1e-9, keep_last=3, keep_best=2
    )


def branch(run: sw.Run) -> sw.Run:
    return fork(run, 0, {"optim": {"lr": 0.003}})


def end_of(run: sw.Run) -> tuple[str, str]:
    """Hashes of weights and numbers."""
    assert run.state == "finished" and run.error() is None
    numbers = run.metrics()[NUMBERS].to_csv().encode()
    return run.weights_hash(), hashlib.sha256(numbers).hexdigest()


@pytest.fixture(scope="module")
def life(tmp_path_factory) -> Life:
    root = tmp_path_factory.mktemp("disk")
    recorder = Recorder(root)

    def on_step(work, numbers) -> None:
        work.stop_requested = work.at.total_steps == 8

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STACKWISE_CACHE", str(root / "cache"))
        with recorder.recording():
            run = create_run(EXPERIMENT, placed(root))
            execute(run, on_step=on_step)
            sw.resume(run)
            child = branch(run)
            sw.resume(child)
    return Life(recorder.notes, [end_of(run), end_of(child)])


def states(notes: list[Note], chance: random.Random, cuts: int) -> list[State]:
    """States after as many cuts, at moments that are drawn."""
    moments = set(chance.sample(range(len(notes)), min(cuts, len(notes))))
    disk, found = Disk(), list[State]()
    for number, note in enumerate(notes):
        disk.do(note)
        if number in moments:
            found.append(chance.choice(list(crashes(disk, chance, 3))))
    return found


def test_what_is_left_is_trained_to_the_same_weights(life, tmp_path, monkeypatch) -> None:
    wrong = []
    for number, state in enumerate(states(life.notes, random.Random(SEED), CUTS)):
        home = tmp_path / str(number)
        home.mkdir()
        lay(state, home, {})
        monkeypatch.setenv("STACKWISE_CACHE", str(home / "cache"))
        try:
            for run in sw.runs_in(home / "runs"):
                sw.resume(run)
            run = sw.train(EXPERIMENT, placed(home))
            ends = [end_of(run), end_of(sw.resume(branch(run)))]
        except Exception as error:
            wrong.append(f"cut {number}: {type(error).__name__}: {error}")
            continue
        if ends != life.ends:
            wrong.append(f"cut {number}: {ends}")
    assert not wrong, "\n".join(wrong)
