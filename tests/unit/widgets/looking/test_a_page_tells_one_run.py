"""One HTML page of a run: whole, alone, escaped, without script, whatever the folder holds."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import stackwise as sw
from stackwise_widgets.page import page_html, write_page

SHIPPED = sorted((Path(__file__).parents[4] / "data" / "runs").iterdir())


class Read(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.facts, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.facts += attrs

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(self.words)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name.split("-")[1])
def test_a_finished_run_is_told_whole(path, tmp_path):
    run = sw.attach(path)
    target = run.share(tmp_path / "page.html")
    page = Read(target.read_text("utf-8"))
    assert 'class="sw-lacks"' not in target.read_text("utf-8")
    for word in ("Stages", "Curves", "Memory", "Rack", "Samples", "What was asked"):
        assert word in page.text
    assert f"{run.result()['bits_per_byte']:.4f}" in page.text
    assert run.provenance()["data"]["fingerprint"] in page.text
    assert (path / "experiment.yaml").read_text() in page.words
    assert target.stat().st_size < 1_000_000


def test_it_says_whether_the_bits_come_again(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    assert "The same bits are not promised: it was made by a version of" in page_html(run)
    facts = run.provenance()
    promise = {"promised": True, "why_not": [], "same": {"device": "cpu", "threads": 2}}
    (run.path / "provenance.json").write_text(json.dumps({**facts, "determinism": promise}))
    assert "the same to the last bit, given device cpu, threads 2." in page_html(run)


def test_nothing_is_fetched_and_nothing_runs():
    text = page_html(sw.attach(SHIPPED[0]))
    page = Read(text)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert not [name for name, _ in page.facts if name.startswith("on")]
    sources = [value for name, value in page.facts if name in ("src", "href", "action")]
    assert sources
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    assert not re.findall(r"url\((?!#)", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text


def test_the_chart_is_a_picture():
    (source,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page_html(sw.attach(SHIPPED[0])))
    assert base64.b64decode(source).startswith(b"\x89PNG")


def test_what_strangers_wrote_is_text(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    bad = "<script>alert(1)</script>&\"'"
    run.label(name=bad, tags=["<i>"], note=bad)
    facts = run.provenance()
    (run.path / "provenance.json").write_text(json.dumps({**facts, bad: {bad: bad}}))
    yaml = (run.path / "placement.yaml").read_text()
    (run.path / "placement.yaml").write_text(f"# {bad}\n{yaml}")
    page = Read(page_html(run))
    assert not {"script", "i"} & set(page.tags)
    assert page.text.count("<script>alert(1)</script>") >= 4


def test_a_run_that_failed_shows_its_last_lines(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    (run.path / "status.json").write_text(json.dumps({"state": "failed"}))
    (run.path / "exit.json").write_text(json.dumps({"code": 1, "error": "no room <here>"}))
    (run.path / "log.txt").write_text("".join(f"line {n}\n" for n in range(100)))
    page = Read(page_html(run))
    assert "no room <here>" in page.text
    assert "line 99" in page.text
    assert "line 3\n" not in page.text
    assert run.what_now() in page.text


@pytest.mark.parametrize(
    "name", ["status.json", "events.jsonl", "provenance.json", "plan.json", "experiment.yaml",
             "tokenizer.json", "rack/manifest.json", "placement.yaml"],
)  # fmt: skip
@pytest.mark.parametrize("text", [None, "{", '{"a": 1}'], ids=["gone", "cut", "other"])
def test_of_a_damaged_run_the_rest_is_shown(runs, tmp_path, name, text):
    run = sw.attach(next(runs.glob("*grow*")))
    if text is None:
        (run.path / name).unlink()
    else:
        (run.path / name).write_text(text)
    page = Read(write_page(run, tmp_path / "page.html").read_text("utf-8"))
    assert run.id in page.text
    assert "Curves" in page.text


def test_a_run_without_weights_has_no_samples(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    shutil.rmtree(run.path / "rack")
    text = page_html(run)
    assert "<h2>Samples</h2>" not in text
    assert "<h2>Curves</h2>" in text


def test_the_same_folder_gives_the_same_page(runs):
    run = sw.attach(next(runs.glob("*grow*")))
    assert page_html(run) == page_html(run)
