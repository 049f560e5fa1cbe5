"""A run folder that is damaged, half-written or of another version is a row with what is wrong."""

from __future__ import annotations

import json
import math
import shutil

import pytest

from stackwise.runs import runs_in
from stackwise.runs.damage import RESTORE
from stackwise.runs.records import GOES_ON
from stackwise_widgets.charts import (
    comparable,
    list_runs,
    overlay,
    overlay_data,
    run_figure,
    run_still,
    run_table,
    runs_table,
    view_of,
)

DAMAGE = {
    "experiment.yaml": "experiment.yaml is damaged",
    "status.json": "status.json is damaged",
    "stages.json": "stages.json is damaged",
    "events.jsonl": "events.jsonl holds no result",
}
JUNK = [b"", b"\xff\xfe\x00", b"[1, 2", b'"text"', b"null", b"{'a': [&x [*x]]}"]


@pytest.mark.filterwarnings("ignore:run .* events.jsonl is damaged")
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named_and_the_others_are_listed(trained, tmp_path, name, junk) -> None:
    trained("good-1")
    run = trained("bad-1")
    (run.path / name).write_bytes(junk)
    frame = list_runs(tmp_path / "runs").set_index("id")
    assert frame.loc["good-1", "state"] == "finished" and frame.loc["good-1", "problem"] is None
    assert frame.loc["bad-1", "state"] == "damaged"
    said = frame.loc["bad-1", "problem"]
    assert DAMAGE[name] in said or f"{name} cannot be read" in said
    ways_out = (RESTORE, GOES_ON, "cannot be read")
    assert any(way_out in said for way_out in ways_out)
    overlay([run, *runs_in(tmp_path / "runs")])
    assert any("bad-1 is damaged" in why for why in comparable(runs_in(tmp_path / "runs")))


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", [*DAMAGE, "plan.json", "provenance.json", "metrics/0001.arrows"])
def test_what_is_left_of_a_damaged_run_is_drawn(trained, name, junk) -> None:
    run = trained()
    (run.path / name).write_bytes(junk)
    view = view_of(run)
    assert len(run_figure(view).data) == 16
    run_still(view)._repr_png_()
    run_table(view)
    if name in ("experiment.yaml", "status.json", "stages.json", "plan.json"):
        assert name.partition(".")[0] in (view.problem or "")
    if name != "metrics/0001.arrows":
        assert view.step == 10


def test_a_folder_whose_making_was_cut_short_is_a_row(made, trained, tmp_path) -> None:
    trained("good-1")
    (made("cut-1").path / "stages.json").unlink()
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "a-file").touch()
    frame = list_runs(tmp_path / "runs").set_index("id")
    assert sorted(frame.index) == ["cut-1", "good-1"]
    assert frame.loc["cut-1", "state"] == "damaged"
    assert frame.loc["cut-1", "problem"] == (
        "it has no stages.json, which is written last: making it was cut short; delete it, or "
        "restore it from a copy of the run, or train again (rerun=True, --rerun)"
    )


def test_a_run_of_another_version_is_damaged_and_its_numbers_are_there(trained, tmp_path) -> None:
    run = trained("old-1")
    path = run.path / "experiment.yaml"
    path.write_text("schema_version: 99\nnovel: {knob: 3}\n" + path.read_text().split("\n", 1)[1])
    trained("new-1")
    frame = list_runs(tmp_path / "runs").set_index("id")
    assert frame["state"].to_dict() == {"old-1": "damaged", "new-1": "finished"}
    assert frame.loc["old-1", "problem"] == (
        "run old-1: experiment.yaml: schema_version: 99 is of another version of StackWise"
    )
    assert frame.loc["old-1", "bits_per_byte"] == 1.5
    assert not [key for key in frame.columns if key in ("schema_version", "novel.knob")]
    assert view_of(run).exits is not None


@pytest.mark.parametrize("size", [120, 200, 400, 700, -9])
def test_a_cut_experiment_is_damaged_and_adds_no_column(trained, tmp_path, size) -> None:
    path = trained("cut-1").path / "experiment.yaml"
    path.write_text(path.read_text()[:size])
    trained("good-1")
    frame = list_runs(tmp_path / "runs").set_index("id")
    assert frame["state"].to_dict() == {"cut-1": "damaged", "good-1": "finished"}
    assert "experiment.yaml" in frame.loc["cut-1", "problem"]
    assert list(frame.columns) == [
        "state", "name", "bits_per_byte", "flops", "peak_bytes", "seconds", "problem"
    ]  # fmt: skip


def test_a_choice_that_lived_in_a_notebook_is_no_damage(trained, tmp_path) -> None:
    for kind, line in (("curriculum", "name"), ("attention", "kind")):
        path = trained(f"own-{kind}").path / "experiment.yaml"
        text = path.read_text()
        at = text.index(f"\n{kind}:\n  {line}: ")
        first = text[at:].split("\n")[2]
        path.write_text(text[:at] + text[at:].replace(first, f"  {line}: mine", 1))
    frame = list_runs(tmp_path / "runs")
    assert frame["state"].tolist() == ["finished"] * 2, frame["problem"].tolist()


def test_an_experiment_that_grows_without_end_is_refused(trained) -> None:
    run = trained()
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (run.path / "experiment.yaml").write_text("\n".join(rows))
    frame = runs_table([run])
    assert frame["state"].tolist() == ["damaged"]
    assert "experiment.yaml is damaged" in frame["problem"][0]


def test_events_of_another_run_do_not_break_the_picture(trained) -> None:
    run = trained()
    odd = [
        {"kind": "eval", "attempt": 1, "step": 11, "stage": 7, "loss": 1.0, "exit_losses": [1, 2]},
        {"kind": "eval", "attempt": 1, "step": 12, "stage": 1, "loss": "x", "exit_losses": [1, 2]},
        {"kind": "eval", "attempt": 1, "step": 13, "stage": None, "loss": None},
        {"kind": "eval", "attempt": "one", "step": "last", "stage": 0},
        {"kind": "memory", "stage": 0, "weights": "many", "peak": None},
    ]
    with (run.path / "events.jsonl").open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in odd))
    view = view_of(run)
    run_figure(view), run_still(view), run_table(view), overlay([run])
    assert view.stages[0].measured["weights"] is None and view.heldout.at.steps[-1] == 13


def test_a_folder_that_vanishes_while_it_is_read_says_so(trained) -> None:
    run = trained()
    shutil.rmtree(run.path)
    assert view_of(run).problem is not None
    frame = runs_table([run])
    assert frame["state"].tolist() == ["damaged"] and math.isnan(frame["bits_per_byte"][0])
    assert len(overlay_data([run])) == 0


def test_no_folder_and_no_run_are_an_empty_table(tmp_path) -> None:
    assert len(list_runs(tmp_path / "nowhere")) == 0
    assert len(runs_table([])) == 0
    assert comparable([]) == []
    assert "no number to draw yet" in [n.text for n in overlay([]).layout.annotations]


def test_only_what_differs_is_a_column(trained, tmp_path, asked) -> None:
    trained("a-1")
    trained("b-1", exp=asked(optim={"lr": 0.1}, seed=4))
    frame = list_runs(tmp_path / "runs").set_index("id")
    assert list(frame.columns) == [
        "state", "name", "optim.lr", "seed", "bits_per_byte", "flops", "peak_bytes", "seconds",
        "problem",
    ]  # fmt: skip
    assert frame["optim.lr"].to_dict() == {"a-1": 0.002, "b-1": 0.1}
    assert frame["seed"].to_dict() == {"a-1": 0, "b-1": 4}
