"""A run's folder may come from a stranger: deleting it removes it, and nothing that it names."""

from __future__ import annotations

import shutil

import pytest

from stackwise.runs import Run, runs_in


def test_a_folder_that_it_calls_its_cache_stays(made, tmp_path) -> None:
    documents = tmp_path / "home" / "Documents"
    (documents / "0").mkdir(parents=True)
    names = ("thesis.tex", "0/manifest.json", "0/rows-000000.bin")
    for name in names:
        (documents / name).write_text("mine")
    run = made("Documents", placement=f"trunk: cached\ncache_dir: {documents.parent}\n")
    assert run.delete() == [documents]
    assert not run.path.exists()
    assert all((documents / name).read_text() == "mine" for name in names)


def test_a_copy_leaves_the_caches_of_the_run_that_it_was_copied_from(made, tmp_path) -> None:
    run = made(placement="trunk: cached\ncache_dir: ../../caches\n")
    rows = tmp_path / "caches" / run.id / "1" / "rows-000000.bin"
    rows.parent.mkdir(parents=True)
    rows.touch()
    shutil.copytree(run.path, tmp_path / "else" / run.id)
    assert Run(tmp_path / "else" / run.id).delete() == [tmp_path / "caches" / run.id]
    assert rows.exists() and run.path.exists()


@pytest.mark.parametrize("place", ["device: cpu\n", "trunk: cached\ncache_dir: .\n"])
def test_caches_in_its_own_folder_go_with_it(made, place) -> None:
    run = made(placement=place)
    for name in ("cache", run.id):
        (run.path / name / "1").mkdir(parents=True)
    assert run.delete() == []
    assert list(run.path.parent.iterdir()) == []


@pytest.mark.parametrize("text", ["device: [", "- 1", "cache_dir: 5\n", "x: \x00", "\udcff"])
def test_a_damaged_placement_hinders_nothing(made, text) -> None:
    run = made()
    (run.path / "placement.yaml").write_text(text, errors="surrogateescape")
    assert run.delete() == []
    assert list(run.path.parent.iterdir()) == []


def test_of_a_link_the_link_goes(made, tmp_path) -> None:
    run, link = made(), tmp_path / "runs" / "link"
    link.symlink_to(run.path)
    assert Run(link).delete() == [run.path]
    assert not link.is_symlink() and [found.id for found in runs_in(tmp_path / "runs")] == [run.id]


def test_the_folder_in_which_one_works_can_be_deleted(made, monkeypatch) -> None:
    run = made()
    monkeypatch.chdir(run.path)
    Run(".").delete()
    monkeypatch.undo()
    assert list(run.path.parent.iterdir()) == []
