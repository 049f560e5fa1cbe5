"""A study whose arms, notes, errors and folder are payloads: its picture, figures and tables."""

from __future__ import annotations

import json
import shutil

import pytest

import stackwise as sw
from stackwise.cli import main
from stackwise.jsontext import dumps
from stackwise.progress import bar_over
from stackwise_widgets import Compare, paired_figure, study_figure
from stackwise_widgets.views.study import study_html

from ....strangers import HALF, MARK, OBEYED, acting, harmless
from .conftest import experiment

BROKEN = "$\\mathdefault{10^{3}$"  # nearly a power of ten, as axes have them


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """As it was run, under hostile names; then its list of runs says what was never measured."""
    runs = tmp_path_factory.mktemp("runs")
    base = experiment(rack={"stacks": 2, "blocks_per_stack": 1}, budget={"tokens": 4 * 96})
    study = sw.Study(
        base,
        seeds=range(2),
        name=f"a|\n{MARK}",
        more={BROKEN: base.replace(**{"optim.lr": 0.002})},
        lr_grid=None,
        same_bytes=False,
        placement=sw.Placement(runs_dir=str(runs), device="cpu", threads=1),
    )
    study.run()
    theirs = shutil.copytree(study.folder, runs / f"study{MARK}")
    facts = json.loads((theirs / "runs.json").read_text())
    facts["notes"] = [MARK + HALF]
    facts["runs"][1]["error"] = MARK + HALF
    (theirs / "runs.json").write_text(dumps(facts))
    return theirs


def test_its_picture_is_text(folder):
    made = study_html(sw.StudyResult.load(folder))
    assert made.count("pwned") > 4 and acting([made]) == []


@pytest.mark.parametrize("figure", [study_figure, paired_figure])
def test_its_figures_draw_it_as_text(folder, figure):
    assert figure(sw.StudyResult.load(folder))._repr_png_()[:4] == b"\x89PNG"


def test_markdown_reads_no_markup_in_a_name(folder):
    head, _, *rows = sw.StudyResult.load(folder).table(markdown=True).splitlines()
    named = next(row for row in rows if "pwned" in row)
    assert named.startswith(
        "| a\\| \"'\\>\\<img src=x onerror=pwned()\\>\\$\\\\frac{1}{\\$\\<a href"
    )
    assert {row.replace("\\|", "").count("|") for row in rows} == {head.count("|")}
    assert not OBEYED.search("".join(rows))


def test_the_panel_shows_it_as_text(folder):
    panel = Compare(folder.parent)
    panel.wait()
    panel.studies.choice.value = str(folder)
    panel.wait()
    assert panel.errors == [] and "pwned" in panel.studies.children[1].value
    harmless(panel)
    assert panel.figure()._repr_png_()[:4] == b"\x89PNG"
    compile(panel.code(), "compare", "exec")


@pytest.mark.parametrize("more", [["--plan"], [], ["--workers", "1"]])
def test_a_terminal_is_given_nothing_that_it_obeys(folder, more, capsys):
    main(["study", str(folder), *more])
    said = capsys.readouterr()
    assert "pwned" in said.out
    assert not OBEYED.search((said.out + said.err).replace("\r", "\n"))  # the bar's own


def test_the_bar_over_its_arms_is_given_none(capsys):
    with bar_over(2.0) as bar:
        bar.enter(f"{MARK}, seed 1", 1.0)
        bar.end()
    said = capsys.readouterr().err
    assert "pwned" in said and not OBEYED.search(said.replace("\r", "\n"))
