"""SIGINT and SIGTERM, once and twice, at exact places of a run and at random moments of it.

A forked child is the command line; it tells the state, the code and, resumed, the weights of a run
that nothing stopped. Launched runs are in `test_a_launched_run_is_told_by_signals.py`.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.runs.control import ask
from stackwise.training.manifest import read_manifest
from stackwise.training.run import execute
from stackwise.training.start import create_run
from tests.children import child, code_of, end_all

NUMBERS = ["step", "stage", "loss", "grad_norm", "flops"]
PLACES = {  # where the signal comes: just before this function is called for the n-th time
    "as it is taken": ("stackwise.runs.lock", "this_process", 1),
    "as its data are opened": ("stackwise.training.opening", "data_of", 1),
    "as its rack is built": ("stackwise.training.opening", "empty_rack", 1),
    "between two stages": ("stackwise.training.run", "keep_stage", 3),
    "as a stage is entered": ("stackwise.training.run", "enter_stage", 2),
    "in a step": ("stackwise.training.step", "take_step", 6),
    "in a look": ("stackwise.training.watch", "losses_by_exit", 2),
    "as a file of a checkpoint is written": ("stackwise.training.checkpoint", "save_file", 9),
    "as a checkpoint is committed": ("stackwise.training.checkpoint", "write_text", 5),
    "as its old files are removed": ("stackwise.training.checkpoint", "_remove_stale", 5),
    "as the rack is scored": ("stackwise.training.watch", "score", 1),
}
UNTOUCHED = ("as it is taken", "as its data are opened")
TWICE = (
    "as its rack is built",
    "in a step",
    "as a checkpoint is committed",
    "as the rack is scored",
)
IN_THE_STEP = ("between", "as a stage", "in a", "as a file", "as a checkpoint", "as its old")


@pytest.fixture(scope="module")
def base() -> Iterator[sw.Experiment]:
    yield sw.Experiment(
        title="tiny",
        rack={"stacks": 3, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
        curriculum="left_to_right",
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4, "lr": 0.01, "ema": 0.9},
        budget={"tokens": 9 * 4 * 16},
        eval={"points": 3, "windows": 8, "draws": 1, "final": 16},
    )


@pytest.fixture(scope="module")
def straight(base, tmp_path_factory) -> sw.Run:
    place = sw.Placement(runs_dir=str(tmp_path_factory.mktemp("straight")), device="cpu")
    return sw.train(base, place.replace(checkpoint_seconds=1e-9))


@pytest.fixture
def run(base, place) -> sw.Run:
    """Made, and not begun; it saves after every step."""
    return create_run(base, place.replace(checkpoint_seconds=1e-9))


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No child outlives its test."""
    yield
    end_all()


def resumed(run: sw.Run, *signals: int, place: tuple[str, str, int]) -> int:
    """Resume a run in a child that signals itself at a place; the code that it ends with."""
    module, name, count = importlib.import_module(place[0]), place[1], place[2]
    function, seen = getattr(module, name), []

    def signalling(*args, **kwargs):
        seen.append(name)
        if len(seen) == count:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return function(*args, **kwargs)

    def what() -> int:
        setattr(module, name, signalling)
        return main(["resume", str(run.path)])

    return code_of(child(what))


def is_whole(run: sw.Run, straight: sw.Run) -> None:
    execute(run)
    assert run.state == "finished"
    assert run.weights_hash() == straight.weights_hash()
    assert run.metrics()[NUMBERS].equals(straight.metrics()[NUMBERS])
    assert run.result()["bits_per_byte"] == straight.result()["bits_per_byte"]


@pytest.mark.parametrize("moment", PLACES)
def test_at_an_exact_place(run, straight, moment) -> None:
    assert resumed(run, signal.SIGTERM, place=PLACES[moment]) == 143
    if moment in UNTOUCHED:
        assert run.state == "made"
    else:
        assert run.state == "stopped"
    if moment.startswith(IN_THE_STEP):
        said = read_manifest(run.path / "rack")["counters"]["total_steps"]
        assert said == len(run.metrics()), "what was done is saved"
    is_whole(run, straight)


@pytest.mark.parametrize("moment", TWICE)
def test_twice_at_an_exact_place(run, straight, moment) -> None:
    assert resumed(run, *[signal.SIGINT] * 2, place=PLACES[moment]) == 130
    assert run.state == "stopped"
    is_whole(run, straight)


def test_once_the_step_in_hand_is_taken_and_twice_it_is_not(run, base) -> None:
    assert resumed(run, *[signal.SIGINT] * 2, place=PLACES["in a step"]) == 130
    assert list(run.metrics()["step"]) == [1, 2, 3, 4, 5]
    assert resumed(run, signal.SIGINT, place=(*PLACES["in a step"][:2], 2)) == 130
    assert list(run.metrics()["step"]) == [1, 2, 3, 4, 5, 6, 7]


def test_while_it_is_paused(run, straight) -> None:
    number = child(lambda: main(["resume", str(run.path)]))
    ask(run.path, "pause")
    until(lambda: run.state in ("paused", "finished"))
    if run.state == "paused":
        os.kill(number, signal.SIGTERM)
        assert code_of(number) == 143
        assert run.state == "stopped"
    is_whole(run, straight)


def test_while_a_cache_is_filled(base, place, straight) -> None:
    run = create_run(base, place.replace(trunk="cached"))
    at = ("stackwise.training.caching", "outputs", 2)
    assert resumed(run, signal.SIGTERM, place=at) == 143
    assert run.state == "stopped" and list((run.path / "cache").iterdir())
    is_whole(run, straight)


def test_at_random_moments(base, place, straight, tmp_path) -> None:
    chance = random.Random(3)
    for number in range(6):
        run = create_run(base, place.replace(runs_dir=str(tmp_path / str(number))))
        pid = child(lambda run=run: main(["resume", str(run.path)]))
        signum = chance.choice([signal.SIGINT, signal.SIGTERM])
        time.sleep(chance.uniform(0, 0.4))
        os.kill(pid, signum)
        code = code_of(pid)
        state = run.state
        if state != "finished":
            assert code in (128 + signum, -signum), state  # the latter before it listens
            assert state in ("stopped", "made")
        is_whole(run, straight)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_during_imports_it_is_answered_in_a_line(tmp_path: Path) -> None:
    """What an interrupted import breaks is no error of the program."""

    def what() -> int:
        import stackwise.cli as cli

        def broken(options):
            os.kill(os.getpid(), signal.SIGTERM)

        def read(arguments):
            try:
                broken(None)
            except KeyboardInterrupt:
                raise SystemError("initialization of _C raised unreported exception") from None

        cli.read = read
        return main(["runs"])

    assert code_of(child(what)) == 143
