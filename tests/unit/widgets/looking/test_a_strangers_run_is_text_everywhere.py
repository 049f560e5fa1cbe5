"""Each text of a hostile run's folder is a payload; no panel, page or terminal lets it act."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import stackwise as sw
from stackwise.cli import main
from stackwise.jsontext import dumps
from stackwise.runs.event_lines import written_line
from stackwise.runs.events import read_events
from stackwise.seals import sealed
from stackwise_widgets import Compare, Inspect, RunPanel, Teach, run_figure, run_still, view_of
from stackwise_widgets.charts.overlay import overlay
from stackwise_widgets.page import page_html

from ....strangers import HALF, MARK, OBEYED, STAGE, acting, harmless, texts_of


def marked(value: Any) -> Any:
    """The same with the payload at the end of each text."""
    if isinstance(value, dict):
        return {key: marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return f"{value}{MARK}{HALF}" if isinstance(value, str) else value


def hostile(run: sw.Run, folder: Path) -> Path:
    """A copy of a run whose every text, its own name included, is a stranger's, seals and all."""
    path = folder / f"a{MARK}"
    shutil.copytree(run.path, path)
    (path / "labels.json").write_text(dumps({"name": MARK, "note": MARK, "tags": [MARK, "b"]}))
    (path / "log.txt").write_text(f"{MARK}\n" * 3)
    exp = yaml.safe_load((path / "experiment.yaml").read_text())
    exp["curriculum"] = {"name": MARK, "more": MARK}
    (path / "experiment.yaml").write_text(yaml.safe_dump(exp, allow_unicode=True))
    for name in ("stages.json", "plan.json"):
        rows = json.loads((path / name).read_text())
        for row in rows:
            if "name" in row:
                row["name"] = STAGE
            if isinstance(row.get("bytes"), dict):
                row["bytes"][MARK] = 5
        (path / name).write_text(dumps([sealed(row) for row in rows]))
    for name in ("provenance.json", "exit.json"):
        facts = json.loads((path / name).read_text())
        keep = {"experiment", "data", "state"}
        facts = {k: v if k in keep else marked(v) for k, v in facts.items() if k != "files"}
        (path / name).write_text(dumps(sealed({**facts, MARK: MARK})))
    events = read_events(path / "events.jsonl")
    told = [{k: v if k in ("kind", "time") else marked(v) for k, v in e.items()} for e in events]
    told += [{"seq": 9999, "kind": MARK, "time": MARK, "attempt": 1, "why": MARK}]
    (path / "events.jsonl").write_text("".join(map(written_line, told)))
    return path


@pytest.fixture
def stranger(kept, tmp_path) -> sw.Run:
    return sw.Run(hostile(kept, tmp_path / "runs"))


@pytest.fixture
def failed(stranger) -> sw.Run:
    """The same, ended by an error whose text is a payload."""
    facts = stranger.status()
    (stranger.path / "status.json").write_text(dumps({**facts, "state": "failed", "device": MARK}))
    said = {"state": "failed", "attempt": facts["attempt"], "error": MARK + HALF, "time": MARK}
    (stranger.path / "exit.json").write_text(dumps(said))
    return stranger


def test_the_payload_would_act_where_it_was_not_escaped():
    assert len(acting([f'<p title="{MARK}">', f"<p>{MARK}</p>", MARK])) >= 4
    assert not acting(["<p title='a'>b</p>"])


@pytest.mark.parametrize("which", ["stranger", "failed"])
def test_no_page_and_no_panel_lets_it_act(which, request, kept):
    run = request.getfixturevalue(which)
    page = page_html(run)
    assert "pwned" in page and acting([page]) == []
    home = str(run.path.parent)
    panel = RunPanel(run=run)
    panel.list_numbers()
    panel.blocks.show()
    both, one = Compare([home, kept.path.parent]), Compare(home)
    for compare in (both, one):
        compare.select(*compare.runs)
        compare.wait()
    one.table.current = one.table.selected[0]
    inspect = Inspect(run)
    for tab in inspect.names:
        inspect.tab = tab
        inspect.wait()
    for each in (panel, both, one, inspect, *([Teach(run)] if which == "stranger" else [])):
        harmless(each)


def test_a_state_that_no_version_knows_is_text(stranger):
    facts = stranger.status()
    (stranger.path / "status.json").write_text(dumps({**facts, "state": MARK + HALF}))
    compare = Compare(stranger.path.parent)
    compare.wait()
    assert "pwned" in compare.table.rows[0]["state"] + compare.state.options[1][0]
    harmless(RunPanel(run=stranger))


def test_names_of_stacks_are_text_where_plotly_reads_html(kept, tmp_path):
    run = sw.Run(shutil.copytree(kept.path, tmp_path / "renamed"))
    rows = json.loads((run.path / "stages.json").read_text())
    for row in rows:
        row |= {key: [f"{name}{MARK}" for name in row[key]] for key in ("path", "active")}
    (run.path / "stages.json").write_text(dumps([sealed(row) for row in rows]))
    texts = [*texts_of(run_figure(view_of(run)).to_plotly_json())]
    assert "s0" in "".join(texts) and any("pwned" in text for text in texts)
    assert acting(texts) == []
    harmless(RunPanel(run=run))


def test_figures_draw_it_as_text(stranger, kept):
    view = view_of(stranger)
    assert run_still(view)._repr_png_()[:4] == b"\x89PNG"
    figures = [run_figure(view), overlay([stranger, kept]), overlay([stranger], x="peak_bytes")]
    texts = [text for each in figures for text in texts_of(each.to_plotly_json())]
    assert any("pwned" in text for text in texts) and acting(texts) == []
    compare = Compare([stranger.path.parent, kept.path.parent])
    compare.select(*compare.runs)
    assert compare.figure()._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize("which", ["stranger", "failed"])
def test_a_terminal_is_given_nothing_that_it_obeys(which, request, capsys):
    run = request.getfixturevalue(which)
    home = str(run.path.parent)
    commands = [
        ["runs", "--runs-dir", home],
        ["watch", str(run.path), "--once", "--plain"],
        ["label", str(run.path)],
        ["pause", str(run.path)],
        ["stop", str(run.path)],
        ["eval", str(run.path)],
        ["sample", str(run.path), "--length", "2"],
        ["resume", str(run.path)],
        ["fork", str(run.path), "0"],
        ["export", str(run.path), str(run.path.parent.parent / "out")],
        ["share", str(run.path), str(run.path.parent.parent / "a.html")],
        ["delete", str(run.path)],
        ["resume", "none", "--runs-dir", home],
    ]
    for words in commands:
        main(words)
        said = capsys.readouterr()
        for text in (said.out, said.err):
            assert not OBEYED.search(text), (words, text)
