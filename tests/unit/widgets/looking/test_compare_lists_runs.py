"""The table of runs: what differs, what is damaged, what a filter finds, how quickly."""

import json
import shutil
import time

import pytest

import stackwise as sw
from stackwise_widgets.charts import runs_table
from stackwise_widgets.compare import Compare


def rows_of(panel):
    return {row["id"]: row for row in panel.table.rows}


@pytest.fixture
def panel(runs):
    panel = Compare(runs)
    assert panel.wait(60)
    yield panel
    assert panel.errors == []


def test_each_run_has_a_row_with_what_it_came_to(panel, runs):
    assert len(panel.table.rows) == 4
    assert {run.id for run in panel.runs} == {path.name for path in runs.iterdir()}
    for run in panel.runs:
        row, result = rows_of(panel)[run.id], run.result()
        assert row["state"] == "finished"
        assert row["cells"]["bits_per_byte"] == f"{result['bits_per_byte']:.4f}"
        assert row["sort"]["flops"] == result["flops"]
    assert panel.data().equals(runs_table([runs / run.id for run in panel.runs]))


def test_only_settings_that_differ_have_a_column(panel):
    keys = {column["key"] for column in panel.table.columns}
    assert "curriculum.name" in keys
    assert not keys & {"seed", "rack.d_model", "title"}
    assert next(c for c in panel.table.columns if c["key"] == "curriculum.name")["title"] == (
        "curriculum"
    )


def test_what_is_damaged_is_listed_with_what_is_wrong(runs):
    first = next(runs.glob("*grow*"))
    for name, file, text in (("a", "status.json", "{"), ("b", "events.jsonl", "")):
        shutil.copytree(first, runs / name)
        (runs / name / file).write_text(text)
    half = runs / "half"
    half.mkdir()
    (half / "experiment.yaml").write_text("title: x")
    panel = Compare(runs)
    panel.wait(60)
    rows = rows_of(panel)
    assert [rows[name]["state"] for name in ("a", "b", "half")] == ["damaged"] * 3
    assert "status.json is damaged" in rows["a"]["problem"]
    assert "holds no result" in rows["b"]["problem"]
    assert "no stages.json" in rows["half"]["problem"]
    assert "3 damaged" in panel._found.value
    assert not {"a", "b", "half"} & set(panel.table.selected)
    panel._tick_all()
    assert set(panel.table.selected) == {path.name for path in runs.glob("shipped-*")}
    assert panel.errors == []


def test_a_filter_finds_words_tags_states_and_values(panel, runs):
    grow = next(run for run in panel.runs if "-grow-" in run.id)
    grow.label(name="the second try", tags=["paper"], note="looks odd")
    panel.refresh()
    panel.wait(60)
    for text in ("PAPER", "second odd", "curriculum.name:grow", "name:grow finished"):
        panel.filter.value = text
        assert [row["id"] for row in panel.table.rows] == [grow.id], text
    panel.filter.value = "d_model:24"
    assert len(panel.table.rows) == 4
    panel.filter.value = "nothing has this"
    assert panel.table.rows == []
    assert len(panel.data()) == 0
    panel.filter.value = ""
    assert panel.state.options[1] == ("finished (4)", "finished")


def test_a_state_leaves_only_its_runs(runs):
    broken = runs / "broken"
    shutil.copytree(next(runs.glob("*grow*")), broken)
    (broken / "status.json").write_text(json.dumps({"state": "stopped"}))
    panel = Compare(runs)
    panel.wait(60)
    panel.state.value = "stopped"
    assert [row["id"] for row in panel.table.rows] == ["broken"]
    assert len(panel.table.selected) == 4  # a filter unticks nothing


def test_hostile_names_stay_text(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    run.label(name='<img src=x onerror="alert(1)">', tags=["<b>"])
    panel = Compare(runs)
    panel.wait(60)
    row = rows_of(panel)[run.id]
    assert row["name"] == '<img src=x onerror="alert(1)">'  # the page puts it in as text
    panel.table.current = row["key"]
    assert "<img" not in panel.deed._title.value
    assert "<img" not in panel._picture.value
    assert "innerHTML" not in panel.table._esm
    assert panel.errors == []


def test_an_empty_folder_says_what_to_do(tmp_path):
    panel = Compare(tmp_path / "none")
    panel.wait(60)
    assert "Launch one" in panel._found.value
    assert "Tick the runs" in panel._picture.value
    assert len(panel.data()) == len(panel.curves()) == 0
    panel.figure()
    assert panel.errors == []


def test_runs_of_several_folders_are_told_apart(runs, tmp_path):
    other = shutil.copytree(runs, tmp_path / "other")
    panel = Compare([runs, other, other / next(other.iterdir()).name])
    panel.wait(60)
    assert len(panel.table.rows) == 8
    assert len({row["key"] for row in panel.table.rows}) == 8
    assert panel.table.rows[0]["key"].startswith("runs/")
    assert panel.errors == []


def test_refresh_finds_what_is_new(panel, runs):
    shutil.copytree(next(runs.glob("*grow*")), runs / "new-1")
    panel.refresh()
    panel.wait(60)
    assert len(panel.table.rows) == 5
    assert "new-1" not in panel.table.selected


def test_it_is_made_at_once_and_reads_beside(runs):
    Compare(runs).wait(60)  # modules are loaded
    begin = time.perf_counter()
    panel = Compare(runs)
    made = time.perf_counter() - begin
    assert panel.wait(60)
    assert made < 0.5


def test_what_run_experiment_refuses_is_damaged_not_ticked_and_adds_no_column(panel, runs):
    first = next(runs.glob("*grow*"))
    for name in ("v99", "cut"):
        shutil.copytree(first, runs / name)
    path = runs / "v99" / "experiment.yaml"
    path.write_text(path.read_text().replace("schema_version: 1", "schema_version: 99"))
    path = runs / "cut" / "experiment.yaml"
    path.write_text(path.read_text()[:200])
    for name in ("v99", "cut"):
        with pytest.raises(sw.ExperimentError):
            sw.attach(runs / name).experiment  # noqa: B018
    before = panel.table.columns
    again = Compare(runs)
    again.wait(60)
    rows = rows_of(again)
    assert {rows[name]["state"] for name in ("v99", "cut")} == {"damaged"}
    assert "schema_version: 99 is of another version" in rows["v99"]["problem"]
    assert "experiment.yaml is cut short: it lacks" in rows["cut"]["problem"]
    assert again.table.columns == before
    again._tick_all()
    assert len(again.selected) == 4
    with pytest.raises(ValueError, match="run 'v99'"):
        again.select("v99")
    assert again.errors == []


def test_a_filter_knows_a_column_by_its_title(panel):
    titles = [column["title"] for column in panel.table.columns]
    assert "curriculum" in titles
    found = {}
    for text in ("curriculum:grow", "curriculum.name:grow", "Curriculum:GROW"):
        panel.filter.value = text
        found[text] = [row["id"] for row in panel.table.rows]
    (ids, *others) = found.values()
    assert len(ids) == 1 and "-grow-" in ids[0] and all(other == ids for other in others)
    panel.filter.value = "curriculum:nothing"
    assert panel.table.rows == []
