"""Every text of a hostile run's folder carries a payload; no panel, page or terminal lets it act.

The payload breaks out of an attribute and of an element, and is an image that would run a script;
it holds mathematics that no figure can set, and escapes that a terminal obeys.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets as w
import pytest
import yaml

import stackwise as sw
from stackwise.cli import main
from stackwise.jsontext import dumps
from stackwise.runs.events import read_events, written_line
from stackwise.seals import sealed
from stackwise_widgets import Compare, Inspect, RunPanel, Teach, run_figure, run_still, view_of
from stackwise_widgets.charts.overlay import overlay
from stackwise_widgets.page import page_html

STAGE = "\"'><img src=x onerror=pwned()>$\\frac{1}{$"
MARK = f"{STAGE}<a href=javascript:pwned()>\x1b]0;pwned\x07\x9b2J"


class Acting(HTMLParser):
    """Collects what a piece of HTML would do that is the payload's."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        handlers = [name for name, _ in attrs if name.startswith("on")]
        strange = any("pwned" in (value or "") for name, value in attrs if name in ("href", "src"))
        if handlers or strange or (tag == "img" and dict(attrs).get("src") == "x"):
            self.found.append(self.get_starttag_text() or tag)


def marked(value: Any) -> Any:
    """The same with the payload at the end of each text."""
    if isinstance(value, dict):
        return {key: marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [marked(item) for item in value]
    return f"{value}{MARK}" if isinstance(value, str) else value


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
    said = {"state": "failed", "attempt": facts["attempt"], "error": MARK, "time": MARK}
    (stranger.path / "exit.json").write_text(dumps(said))
    return stranger


def instances() -> Iterator[w.Widget]:
    from ipywidgets.widgets.widget import _instances

    yield from list(_instances.values())


def shown() -> list[str]:
    """All that the widgets which exist would put into a page as HTML, and what plotly would."""
    found = []
    for each in instances():
        if isinstance(each, w.HTML | w.HTMLMath):
            found.append(str(each.value))
        if hasattr(each, "to_plotly_json"):
            found += [text for text in texts_of(each.to_plotly_json())]
        if getattr(each, "description_allow_html", False):
            found.append(str(each.description))
    return found


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from texts_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, str):
        yield value


def acting(texts: list[str]) -> list[str]:
    return [act for text in texts for act in Acting(text).found]


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
    both, one = Compare([home, kept.path.parent]), Compare(home)
    for compare in (both, one):
        compare.select(*compare.runs)
        compare.wait()
    one.table.current = one.table.selected[0]
    inspect = Inspect(run)
    for tab in inspect.names:
        inspect.tab = tab
        inspect.wait()
    if which == "stranger":
        Teach(run)
    texts = shown()
    assert any("pwned" in text for text in texts)
    assert acting(texts) == []


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
            assert not [c for c in text if c in "\x1b\x07\x9b"], (words, text)
