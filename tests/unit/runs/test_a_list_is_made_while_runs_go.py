"""Runs are deleted and made while a list of them is made; what is half there is in no list."""

from __future__ import annotations

import os
import shutil
import threading

import pytest

from stackwise.runs import Run, RunError, attach, runs_in


def test_what_begins_with_a_dot_is_no_run(made) -> None:
    run = made()
    shutil.copytree(run.path, run.path.with_name(".deleted-1-2"))
    assert [found.id for found in runs_in(run.path.parent)] == [run.id]
    with pytest.raises(RunError, match="no such run"):
        attach(".del", run.path.parent)


def test_a_run_that_goes_meanwhile_is_left_out(made, monkeypatch) -> None:
    runs = [made(f"run-{n}").path for n in range(3)]
    listdir = os.listdir

    def then_gone(folder):
        names = listdir(folder)
        shutil.rmtree(runs[1], ignore_errors=True)
        return names

    monkeypatch.setattr(os, "listdir", then_gone)
    assert sorted(found.id for found in runs_in(runs[0].parent)) == ["run-0", "run-2"]


def test_lists_are_made_while_others_delete(made) -> None:
    run, failed, done = made(), list[Exception](), threading.Event()

    def listing() -> None:
        while not done.is_set():
            try:
                runs_in(run.path.parent)
            except Exception as error:
                failed.append(error)

    thread = threading.Thread(target=listing)
    thread.start()
    try:
        for number in range(100):
            copy = run.path.with_name(f"copy-{number}")
            shutil.copytree(run.path, copy)
            Run(copy).delete()
    finally:
        done.set()
        thread.join()
    assert failed == []


def test_a_folder_that_is_none_has_no_runs(tmp_path) -> None:
    (tmp_path / "file").touch()
    assert runs_in(tmp_path / "file") == runs_in(tmp_path / "nowhere") == []
