"""Rename, note, tag, share and delete: each to the run that is open, none by surprise."""

import shutil
import zipfile

import pytest

import stackwise as sw
from stackwise_widgets.compare import Compare
from stackwise_widgets.shipped import is_shipped, shipped_runs


@pytest.fixture
def panel(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel = Compare("runs")
    assert panel.wait(60)
    return panel


def open_run(panel, part="-grow-"):
    run = next(run for run in panel.runs if part in run.id)
    panel.table.current = run.id
    return run


def test_nothing_is_open_at_first(panel):
    assert panel.deed.children == ()
    open_run(panel)
    assert panel.deed.children
    panel.table.current = ""
    assert panel.deed.children == ()


def test_name_tags_and_note_are_kept_in_the_folder(panel):
    run = open_run(panel)
    panel.deed.name.value, panel.deed.tags.value = "better", "paper, kjv,"
    panel.deed.note.value = "as expected"
    panel.deed._save.click()
    panel.wait(60)
    assert (run.labels.name, run.labels.tags) == ("better", ("paper", "kjv"))
    assert run.labels.note == "as expected"
    row = next(row for row in panel.table.rows if row["id"] == run.id)
    assert (row["name"], row["tags"]) == ("better", ["paper", "kjv"])
    assert "Saved" in panel.deed.said
    assert panel.errors == []


def test_a_name_that_cannot_be_is_said(panel):
    run = open_run(panel)
    panel.deed.name.value = "x" * 81
    panel.deed._save.click()
    (error,) = panel.errors
    assert str(error) == (
        "saving name, tags and note: name: has 81 characters, and 80 are allowed; shorten it"
    )
    assert "81 characters" in panel.guard.card.value
    assert run.labels.name == ""


def test_deleting_takes_two_clicks(panel, tmp_path):
    run = open_run(panel)
    panel.deed._delete.click()
    assert panel.deed.asks
    assert run.path.exists()
    panel.deed._keep.click()
    assert not panel.deed.asks
    panel.deed._delete.click()
    other = open_run(panel, "end_to_end")  # asks anew of another run
    assert not panel.deed.asks
    open_run(panel)
    panel.deed._delete.click()
    panel.deed._delete.click()
    panel.wait(60)
    assert not run.path.exists()
    assert other.path.exists()
    assert run.id not in [row["id"] for row in panel.table.rows]
    assert run.id not in panel.table.selected
    assert "Deleted" in panel.deed.said
    assert panel.errors == []


@pytest.mark.parametrize(
    ("kind", "weights"), [("zip, with weights", True), ("zip, without weights", False)]
)
def test_a_zip_is_a_run_again(panel, tmp_path, kind, weights):
    run = open_run(panel)
    panel.deed.kind.value = kind
    assert panel.deed.file.value == f"{run.id}.zip"
    panel.deed._share.click()
    panel.deed.wait(60)
    with zipfile.ZipFile(tmp_path / f"{run.id}.zip") as packed:
        packed.extractall(tmp_path / "out")
    again = sw.attach(tmp_path / "out" / run.id)
    assert again.result() == run.result()
    assert again.has_weights() == weights
    assert panel.deed.file.value == f"{run.id}-2.zip"
    assert panel.errors == []


def test_a_page_is_written(panel, tmp_path):
    run = open_run(panel)
    panel.deed.kind.value = "one HTML page"
    panel.deed._share.click()
    panel.deed.wait(120)
    assert panel.errors == []
    assert (tmp_path / f"{run.id}.html").read_text().startswith("<!DOCTYPE html>")
    assert "Written" in panel.deed.said


def test_no_file_is_written_over(panel, tmp_path):
    open_run(panel)
    mine = tmp_path / "mine.zip"
    mine.write_text("mine")
    panel.deed.file.value = "mine.zip"
    panel.deed._share.click()
    panel.deed.wait(60)
    assert mine.read_text() == "mine"
    assert "is there already" in str(panel.errors[0])
    panel.deed.file.value = "mine.txt"
    panel.deed._share.click()
    assert "has to be .zip" in str(panel.errors[1])


def test_what_is_no_run_can_be_looked_at_and_no_more(panel, tmp_path):
    half = tmp_path / "runs" / "half"
    half.mkdir()
    (half / "experiment.yaml").write_text("title: x")
    panel.refresh()
    panel.wait(60)
    panel.table.current = "half"
    assert panel.deed._delete.disabled
    assert panel.deed.name not in panel.deed.children
    assert panel.errors == []


def test_what_ships_can_be_shared_and_neither_renamed_nor_deleted(panel, tmp_path, monkeypatch):
    monkeypatch.setattr("stackwise_widgets.shipped.SHIPPED", tmp_path / "runs")
    run = open_run(panel)
    assert panel.deed._save.disabled and panel.deed._delete.disabled and panel.deed.name.disabled
    assert "ships with the project" in panel.deed._delete.tooltip
    assert panel.deed._save.tooltip == panel.deed._delete.tooltip
    assert any("ships with the project" in getattr(it, "value", "") for it in panel.deed.children)
    for button in (panel.deed._save, panel.deed._delete, panel.deed._delete):
        button.click()  # as a page that is older would
    assert len(panel.errors) == 3 and run.path.exists() and run.labels.name == ""
    assert "ships with the project; copy its folder to change it" in str(panel.errors[0])
    assert not panel.deed.asks and not panel.deed._share.disabled
    mine = tmp_path / "runs" / "mine-1"
    shutil.copytree(run.path, mine)
    panel.refresh()
    panel.wait(60)
    panel.table.current = "mine-1"
    assert not panel.deed._delete.disabled and not panel.deed.name.disabled
    assert not any("ships" in getattr(it, "value", "") for it in panel.deed.children)


def test_the_projects_own_runs_are_those_that_ship(panel):
    assert len(shipped_runs()) == 4 and all(map(is_shipped, shipped_runs()))
    assert not any(map(is_shipped, panel.runs))  # copies


def test_a_file_without_a_name_and_a_folder_that_is_missing_are_said(panel, tmp_path):
    open_run(panel)
    for name in ("", "nowhere/x.zip"):
        panel.deed.file.value = name
        panel.deed._share.click()
        panel.deed.wait(60)
    panel.deed.kind.value = "one HTML page"
    panel.deed.file.value = "nowhere/x.html"
    panel.deed._share.click()
    panel.deed.wait(60)
    assert [str(error) for error in panel.errors] == [
        "sharing the run: file: a name is missing; give one that ends in .zip",
        *["sharing the run: nowhere: no such folder; make it, or name another"] * 2,
    ]
    assert not panel.deed._share.disabled
