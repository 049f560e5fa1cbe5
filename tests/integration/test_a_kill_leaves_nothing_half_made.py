"""Killed at any operation, what makes, copies or removes runs is done again, and nothing is left.

Forks, runs that are made once more, shared files, fetched mirrors, prepared text and deletions:
after a kill nothing half made is listed, what was there is as it was, the same call comes to the
same, and what the killed one made beside its place is gone. Training itself is killed in
`test_a_kill_at_any_moment_changes_no_bit.py`.
"""

from __future__ import annotations

import random
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import stackwise as sw
from stackwise import drafts
from stackwise.cli import main
from stackwise.interop.new_folder import new_folder
from stackwise.mirrors.mirror import copy_now
from stackwise.runs import RunError
from stackwise.training.forking import fork
from stackwise.training.start import create_run

KILLS = 5
EXPERIMENT = sw.Experiment(
    title="t",
    rack={"stacks": 2, "blocks_per_stack": 1, "d_model": 16, "heads": 2},
    data={"corpus": {"kind": "markov", "size_bytes": 3000}, "seq_len": 8},
    optim={"batch": 2, "lr": 0.01},
    budget={"tokens": 8 * 2 * 8},
    eval={"points": 2, "windows": 2, "draws": 1, "final": 2},
    curriculum="left_to_right",
)


@pytest.fixture(scope="module")
def striking(from_benchmarks) -> ModuleType:
    return from_benchmarks("striking")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run in `runs/`, and its mirror."""
    home = tmp_path_factory.mktemp("made")
    copy_now(sw.train(EXPERIMENT, placed(home)), f"file://{home}/mirror")
    return home


def placed(home: Path) -> sw.Placement:
    return sw.Placement(runs_dir=str(home / "runs"), device="cpu")


def first(home: Path) -> sw.Run:
    return sw.runs_in(home / "runs")[-1]


def branch(home: Path) -> str:
    return sw.resume(fork(first(home), 0, {"optim": {"lr": 0.02}})).weights_hash()


def once_more(home: Path) -> list[str]:
    if len(sw.runs_in(home / "runs")) == 1:  # else it was whole before the kill
        create_run(EXPERIMENT, placed(home), rerun=True)
    return sorted(path.name for path in (home / "runs").iterdir())


def share(home: Path) -> list[str]:
    first(home).share(home / "run.zip")
    with zipfile.ZipFile(home / "run.zip") as packed:
        assert packed.testzip() is None
        return sorted(packed.namelist())


def fetch(home: Path) -> str:
    with suppress(RunError):  # it was there whole before the kill
        sw.fetch(f"file://{home}/mirror", home / "fetched")
    return sw.runs_in(home / "fetched")[0].weights_hash()


def prepare(home: Path) -> str:
    corpus = {"kind": "markov", "size_bytes": 3001}
    return sw.open_dataset(corpus, cache_dir=home / "cache").fingerprint


def delete(home: Path) -> list[str]:
    for run in sw.runs_in(home / "runs"):
        run.delete()
    drafts.sweep(home / "runs", drafts.DELETED)  # as the next one that is deleted does
    return [path.name for path in (home / "runs").iterdir()]


def write_model(home: Path) -> list[str]:
    if not (home / "model").exists():
        with new_folder(home / "model", home / "runs", 1) as part:
            for name in ("one", "two"):
                (part / name).write_text(name)
    return sorted(path.name for path in (home / "model").iterdir())


def listed(home: Path) -> dict[str, str]:
    """Every run that is listed, whole: by its weights, if it has any."""
    runs = [*sw.runs_in(home / "runs"), *sw.runs_in(home / "fetched")]
    for run in runs:
        assert run.stages() and run.experiment and run.provenance() and run.error() is None
    return {str(run.path): run.weights_hash() for run in runs if run.has_weights()}


@pytest.mark.parametrize("do", [branch, once_more, share, fetch, prepare, delete, write_model])
def test_what_was_killed_is_done_again(do, striking, made, tmp_path) -> None:
    home, chance = tmp_path / "home", random.Random(do.__name__)

    def fresh() -> None:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(made, home)

    fresh()
    before, action = listed(home), begin(do, home)
    whole = striking.struck(action, striking.Strike())
    fresh()
    wanted = do(home)
    places = chance.sample(range(len(whole.operations)), min(KILLS, len(whole.operations)))
    for place in places:
        fresh()
        struck = striking.struck(action, striking.Strike(place, chance.random()))
        at = f"killed at {struck.operations}"
        assert struck.killed, at
        if do is not delete:
            assert before.items() <= listed(home).items(), at
        assert do(home) == wanted, at
        left = [path for path in home.rglob(".*") if not is_small(path)]
        assert not left, at


def begin(do: Callable[[Path], object], home: Path) -> Callable[[], object]:
    """What is killed of a deed: a branch is made, and not trained."""
    if do is branch:
        return lambda: fork(first(home), 0, {"optim": {"lr": 0.02}})
    return partial(do, home)


def is_small(path: Path) -> bool:
    """Whether it is the draft of a small file in a run, which its next training sweeps."""
    return path.is_file() and path.suffix == ".part" and path.parent.name.startswith("t-")


def test_what_is_in_hand_is_nobodys_to_sweep(tmp_path) -> None:
    with drafts.drafted(tmp_path, drafts.FORK) as mine:
        drafts.sweep(tmp_path, drafts.FORK)
        with drafts.drafted(tmp_path, drafts.FORK):
            assert mine.is_dir() and not drafts.left_in(tmp_path, drafts.FORK)
    assert not list(tmp_path.iterdir())


def test_pruning_names_and_removes_what_killed_processes_left(made, tmp_path, capsys) -> None:
    runs = shutil.copytree(made / "runs", tmp_path / "runs")
    left = runs / f"{drafts.FETCH}killed"
    left.mkdir()
    (left / "file").write_bytes(bytes(100_000))
    (runs / f"{drafts.FORK}link").symlink_to(tmp_path)
    assert main(["runs", "--prune", "--runs-dir", str(runs)]) == 0
    assert f"{left.name}: 100.0 KiB, left-overs" in capsys.readouterr().out and left.is_dir()
    assert main(["runs", "--prune", "--runs-dir", str(runs), "--yes"]) == 0
    assert not left.exists() and (runs / f"{drafts.FORK}link").is_symlink()
