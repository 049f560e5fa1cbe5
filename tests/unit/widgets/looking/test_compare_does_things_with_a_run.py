"""Rename, note, tag, share and delete: each to the run that is open, none by surprise."""

import zipfile

import pytest

import stackwise as sw
from stackwise_widgets.compare import Compare


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
