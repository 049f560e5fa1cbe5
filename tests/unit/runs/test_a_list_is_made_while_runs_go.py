"""Runs are deleted and made while a list of them is made; what is half there is in no list.

One that a stranger made to hinder the list is in it, and hinders nothing.
"""

from __future__ import annotations

import os
import shutil
import threading

import pytest

from stackwise.cli import main
from stackwise.curriculum import MOST_STAGES
from stackwise.runs import Run, RunError, attach, runs_in
from stackwise.runs.following import Follower
from stackwise.runs.records import MOST_ROWS


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


def nested(folder, levels: int) -> None:
    """Folders in folders, deeper than a path may be long."""
    place = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)


def test_folders_without_end_hinder_no_list_and_are_left_to_rm(made, tmp_path, capsys) -> None:
    run = made()
    nested(run.path, 1200)
    assert run.disk()["bytes"] > 0 and run.summary()["problem"] is None
    assert main(["runs", "--runs-dir", str(tmp_path / "runs")]) == 0
    capsys.readouterr()
    for act in (run.delete, lambda: run.share(tmp_path / "run.zip")):
        with pytest.raises(OSError, match="d: holds folders over 32 deep; remove it with rm -r"):
            act()
    assert run.path.exists() and os.system(f"rm -r {run.path}") == 0


def test_more_stages_than_a_curriculum_has_are_damage(made) -> None:
    assert MOST_ROWS == MOST_STAGES
    run = made()
    for name in ("stages.json", "plan.json"):
        (run.path / name).write_text(f"[{', '.join(['{}'] * (MOST_ROWS + 1))}]")
    for read in (run.stages, run.plan):
        with pytest.raises(RunError, match="is damaged"):
            read()
    assert run.summary()["state"] == "damaged"


def test_a_number_that_is_none_to_us_names_no_segment(made) -> None:
    run = made()
    (run.path / "metrics").mkdir()
    for name in ("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}", "9" * 200):
        (run.path / "metrics" / f"{name}.arrows").touch()
    assert not Follower(run.path).read() and len(run.metrics()) == 0


def test_a_folder_in_place_of_a_file_is_damage(made) -> None:
    run = made()
    for name in ("status.json", "exit.json", "plan.json"):
        (run.path / name).unlink(missing_ok=True)
        (run.path / name).mkdir()
    assert run.state == "damaged" and not run.is_live
    for read in (run.status, run.plan):
        with pytest.raises(RunError, match="is damaged"):
            read()


@pytest.mark.parametrize("number", ["9" * 4000, "1e999", "-1e999", '"x"', "[]", "{}", "true"])
def test_a_figure_that_no_list_can_hold_is_damage(made, number, capsys) -> None:
    run = made()
    event = f'{{"kind": "result", "bits_per_byte": {number}, "peak_bytes": {number}}}\n'
    (run.path / "events.jsonl").write_text(event)
    (run.path / "status.json").write_text(f'{{"state": "finished", "stage": {number}}}')
    assert main(["runs", "--runs-dir", str(run.path.parent)]) == 0
    assert run.id in capsys.readouterr().out


def test_a_name_that_is_no_utf8_is_read_and_not_zipped(made, tmp_path) -> None:
    run = made()
    odd = run.path.rename(run.path.with_name("run-\udcff"))
    assert Run(odd).summary()["id"] == "run-\udcff" and len(Run(odd).metrics()) == 0
    with pytest.raises(OSError, match="is a name that is no UTF-8, which no zip holds; rename it"):
        Run(odd).share(tmp_path / "run.zip")


def test_a_hole_of_a_terabyte_is_not_packed_for_hours(made, tmp_path) -> None:
    run = made()
    with (run.path / "log.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=r"log\.txt: is 1099511627776 bytes long, nearly all of them"):
        run.share(tmp_path / "run.zip")
    assert not (tmp_path / "run.zip").exists()
