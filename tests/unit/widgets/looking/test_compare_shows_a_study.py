"""A study that lies beside the runs is offered, with its control, rates, verdict and losses."""

from __future__ import annotations

import shutil
from xml.etree import ElementTree

import pytest

import stackwise as sw
from stackwise_widgets import Compare, paired_figure
from stackwise_widgets.comparison.studies import studies_in
from stackwise_widgets.views.study import study_html


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    base = sw.Experiment(
        title="tiny",
        rack={"stacks": 2, "d_model": 16, "heads": 2},
        data={"corpus": {"kind": "markov", "size_bytes": 40_000}, "seq_len": 16},
        optim={"batch": 4},
        budget={"tokens": 6 * 4 * 16},
        eval={"points": 1, "windows": 8, "draws": 1, "final": 8},
        curriculum="left_to_right",
    )
    made = sw.Study(
        base,
        seeds=range(3),
        name="a <b>",
        lr_grid=(0.001, 0.01),
        same_bytes=False,
        placement=sw.Placement(runs_dir=str(folder), device="cpu", threads=1),
    )
    made.run()
    return made


def chosen(study):
    panel = Compare(study.placement.runs_dir)
    panel.wait()
    panel.studies.choice.value = str(study.folder)
    panel.wait()
    assert panel.errors == []
    return panel


def test_the_study_beside_the_runs_is_offered_and_its_runs_are_ticked(study):
    panel = chosen(study)
    assert [name for name, _ in panel.studies.choice.options] == ["no study", study.folder.name]
    assert panel.studies.layout.display != "none"
    compared = {run.id for _, _, run in panel.studies.result.runs}
    assert {run.id for run in panel.selected} == compared
    assert len(compared) == 6 and len(panel.runs) == 10  # the grid's runs are listed, not ticked
    panel.studies.choice.value = ""
    panel.wait()
    assert panel.studies.result is None and panel.studies.children[1].value == ""


def test_what_it_says_is_what_the_result_says(study):
    said = "".join(ElementTree.fromstring(study_html(study.result())).itertext())
    result, rows = study.result(), study.result().summary().set_index("arm")
    assert result.verdict() in said
    assert "control: control" in said and "a study at equal flops" in said.lower()
    cells = [
        [cell.text for cell in line.iter("td")]
        for line in ElementTree.fromstring(study_html(result)).iter("tr")
    ][1:]
    table = {line[0]: line for line in cells}
    assert table.keys() == set(rows.index) == {"a <b>", "control"}
    for name, row in rows.iterrows():
        bits, away, interval, judged, seeds, _, rate, _, grid, _ = table[name][1:]
        assert bits == f"{row['mean']:.3f} ± {row['std']:.3f}"
        assert judged == row["judged"] and seeds == "3" and rate == f"{row['lr']:g}"
        assert grid != "none" and row["tuning_flops"] > 0
        if name != "control":
            assert away == f"{row['difference']:+.3f}"
            assert interval == f"{row['low']:+.3f} to {row['high']:+.3f}"
    assert "learning rates: 0.001, 0.01, tried on every arm with seed 1000" in said
    assert "best rate is the" in said  # of two, each is at an edge


def test_each_arm_beside_the_control_is_drawn(study):
    svg = "{http://www.w3.org/2000/svg}"
    groups = ElementTree.fromstring(study_html(study.result())).iter(f"{svg}g")
    (group,) = [g for g in groups if g.get("data-arm")]
    assert group.get("data-arm") == "a <b>"
    tip = group.find(f"{svg}title").text
    assert study.result().summary().set_index("arm").loc["a <b>", "judged"] in tip


def test_the_paper_figure_tells_the_tuned_rates(study):
    figure = paired_figure(study.result())
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    rates = study.result().summary()["lr"]
    assert [f"rate {rate:g}" in text for rate, text in zip(rates, texts, strict=False)] == [
        True
    ] * 2


def test_a_study_whose_runs_are_gone_says_so(study, tmp_path):
    shutil.copytree(study.folder, tmp_path / study.folder.name)
    panel = Compare(tmp_path)
    panel.wait()
    panel.studies.choice.value = str(tmp_path / study.folder.name)
    panel.wait()
    assert panel.studies.result is None and panel.errors == []
    assert "none of its runs has begun, or all are gone" in panel.studies.children[1].value


def test_without_a_study_nothing_is_offered(tmp_path):
    panel = Compare(tmp_path)
    panel.wait()
    assert panel.studies.layout.display == "none"
    assert studies_in([tmp_path, tmp_path / "none"]) == {}


def test_a_studys_own_folder_may_be_named(study):
    assert studies_in([study.folder]) == {study.folder.name: study.folder}
