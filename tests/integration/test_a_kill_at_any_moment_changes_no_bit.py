"""Killed at some seventy moments, runs of all kinds end as those that nobody killed, to the bit.

What is killed, and where, is drawn with fixed seeds by `benchmarks/killed.py`, whose benchmark does
the same five hundred times: inside a checkpoint, between stages, while the run's folder is made, a
cache filled, a stage's end kept, the end written; and again as the killed run is opened. A failure
names the seed and the operation at which each kill struck.
"""

from __future__ import annotations

import shutil
from functools import partial
from itertools import islice
from types import ModuleType
from typing import Any

import pytest

import stackwise as sw

KINDS, GROUPS, SEED = 24, 6, 7
KILLS = 9  # in each group: of twelve, four are of runs that may end before they are killed again
PLACES = {
    "as the folder is a run": ("rename", ".stages.json", 1),
    "as a stage's end is saved": ("rename", "rack/.manifest.json", 0),
    "as what a checkpoint replaced goes": ("remove", ".optimizer-", 0),
    "as the end is written": ("rename", ".exit.json", 0),
}


@pytest.fixture(scope="module")
def killed(from_benchmarks) -> ModuleType:
    return from_benchmarks("killed")


@pytest.fixture(scope="module")
def kinds(killed, tmp_path_factory) -> list[Any]:
    start = killed.begun(tmp_path_factory.mktemp("start"))
    return list(islice(killed.kinds(start, SEED), KINDS))


@pytest.mark.parametrize("group", range(GROUPS))
def test_killed_and_gone_on_with_it_ends_the_same(killed, kinds, tmp_path, group) -> None:
    strikes = 0
    for number in range(group, KINDS, GROUPS):
        folder = tmp_path / str(number)
        whole = killed.straight(kinds[number], folder)
        draws = [(1, ""), (2, "")]
        if number + GROUPS >= KINDS:  # the last of them makes up for kills that did not strike
            draws += [(1, f" {more}") for more in range(KILLS)]
        for kills, more in draws:
            if more and strikes >= KILLS:
                break
            seed = f"{SEED} {number} {kills}{more}"
            done = killed.trial(kinds[number], whole, folder, seed, kills)
            assert not done.wrong, f"{seed!r} {kinds[number].facts} {done.struck}: {done.wrong}"
            strikes += len(done.struck)
        shutil.rmtree(folder)
    assert strikes >= KILLS


def test_the_kinds_take_every_value(killed, kinds) -> None:
    assert {kind.facts["curriculum"] for kind in kinds} == set(sw.CURRICULA)
    for key, values in killed.VALUES.items():
        assert {kind.facts[key] for kind in kinds} == set(values), key


@pytest.fixture(scope="module")
def whole(killed, kinds, tmp_path_factory):
    """A run of several stages that saves after each step, and what it did to files."""
    facts = {**kinds[0].facts, "curriculum": "left_to_right", "saved": 1e-9, "kept": False}
    kind, folder = killed.made(facts, None), tmp_path_factory.mktemp("places")
    return kind, folder, killed.straight(kind, folder)


@pytest.mark.parametrize("place", PLACES)
def test_a_kill_leaves_nothing_undone_and_nothing_behind(killed, whole, place) -> None:
    """Where nothing is written again afterwards, what is missing or left over would stay so."""
    kind, folder, straight = whole
    verb, name, after = PLACES[place]
    struck = [n for n, what in enumerate(straight.operations) if what.startswith(verb)]
    last = [n for n in struck if name in straight.operations[n]][-1]
    here = folder / "killed"
    shutil.rmtree(here, ignore_errors=True)
    going = partial(killed.go_on, kind.experiment, kind.placement.replace(runs_dir=str(here)))
    assert killed.struck(partial(going, by="train"), killed.Strike(last + after)).killed
    killed.struck(partial(going, by="resume"), killed.Strike())
    (run,), (other,) = sw.runs_in(here), sw.runs_in(folder / "whole")
    assert not killed.differences(other, run)


def test_a_kill_is_torn_where_it_is_asked(killed, tmp_path) -> None:
    """Else no test here would show a thing: a struck write leaves that part of its bytes."""
    file = tmp_path / "file"

    def write() -> None:
        file.write_text("before")
        with file.open("ab", buffering=0) as appended:
            appended.write(b"and after")

    done = killed.struck(write, killed.Strike(3, torn_frac=0.4))
    assert done.killed and done.operations == [f"write {file}"]
    assert file.read_text() == "beforeand"
