"""Another run, of the same folder or of another: it is shown, in the list, once."""

import shutil

import pytest

import stackwise as sw
from stackwise_widgets.inspecting import Inspect


@pytest.fixture
def other(trained_once, tmp_path):
    """A run in a folder of its own."""
    run = trained_once()
    return sw.attach(shutil.copytree(run.path, tmp_path / "other" / run.id))


def test_a_run_of_another_folder_is_shown_and_both_folders_are_offered(runs, other):
    panel = Inspect("shipped-grow", runs_dir=runs)
    before = set(panel.choice.options)
    panel.run = other
    assert panel.wait(60) and panel.errors == []
    assert panel.run is other and panel.choice.value == other.id
    assert panel.choice.options[0] == other.id and set(panel.choice.options[1:]) == before
    assert [part["name"] for part in panel.parts][1:-1] == ["s0", "s1", "s2"]
    panel.choice.value = next(name for name in before if "-grow-" in name)
    assert panel.wait(60) and panel.errors == []
    assert "-grow-" in panel.run.id and len(panel.parts) == 6
    assert set(panel.choice.options) == {other.id, *before}


def test_a_run_launched_meanwhile_is_in_the_list(runs):
    panel = Inspect("shipped-grow", runs_dir=runs)
    known = panel.choice.options
    run = sw.attach(shutil.copytree(panel.run.path, runs / "launched-later"))
    panel.run = run
    assert panel.wait(60) and panel.errors == []
    assert panel.choice.value == "launched-later"
    assert set(panel.choice.options) == {"launched-later", *known}


def test_no_id_is_offered_twice_and_a_third_folder_takes_the_place_of_the_first(
    runs, other, tmp_path
):
    panel = Inspect("shipped-grow", runs_dir=runs)
    own = panel.run
    twin = sw.attach(shutil.copytree(own.path, tmp_path / "twins" / own.id))
    panel.run = twin
    assert len(panel.choice.options) == len(set(panel.choice.options)) == len(sw.runs_in(runs))
    assert panel.run is twin and panel.choice.value == own.id
    panel.run = other
    assert panel.choice.options == (other.id, twin.id)
    panel.choice.value = twin.id
    assert panel.run.path == twin.path and panel.wait(60) and panel.errors == []
