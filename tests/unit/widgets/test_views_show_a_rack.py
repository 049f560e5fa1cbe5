"""A rack as a picture, from a run's folder alone and from any parts."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

import stackwise as sw
from stackwise_widgets.views import rack_html, rack_parts

SVG = "{http://www.w3.org/2000/svg}"
SHIPPED = sorted((Path(__file__).parents[3] / "data" / "runs").iterdir())


@pytest.fixture
def run(tmp_path):
    """A run that may be changed."""
    source = next(path for path in SHIPPED if "left_to_right" in path.name)
    shutil.copytree(source, tmp_path / source.name)
    return sw.attach(tmp_path / source.name)


def set_status(run, **facts):
    path = run.path / "status.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_the_parts_are_those_of_the_folder(path):
    run = sw.attach(path)
    parts = rack_parts(run)
    exp, listed = run.experiment, json.loads((path / "rack" / "manifest.json").read_text())["parts"]
    assert [part["name"] for part in parts] == ["embedding", *sw.stack_ids(exp.rack), "head"]
    assert {part["state"] for part in parts} == {"trained"}
    assert [part["bytes"] for part in parts] == [listed[p["name"]]["bytes"] for p in parts]
    assert [part["dtype"] for part in parts] == ["float32"] * len(parts)
    rack = run.rack()
    for part in parts:
        numbers = sum(p.numel() for p in rack.parts()[part["name"]].parameters())
        ours = 2 * exp.rack.d_model * (part["name"] == "embedding")  # [MASK] and [START]
        assert part["parameters"] == numbers - ours
    vocab = run.tokenizer().size
    whole = sw.count_parameters(exp.rack, exp.attention, vocab)
    assert sum(part["parameters"] for part in parts) == whole


def test_while_it_runs_states_are_those_of_the_stage_in_hand(run):
    set_status(run, state="stopped", stage=2)
    parts = {part["name"]: part["state"] for part in rack_parts(run)}
    assert parts == {
        "embedding": "trunk",
        "s0": "trunk",
        "s1": "trunk",
        "s2": "active",
        "s3": "absent",
        "head": "active",
    }


def test_before_a_checkpoint_bytes_are_not_known(run):
    shutil.rmtree(run.path / "rack")
    set_status(run, state="stopped", stage=0)
    parts = rack_parts(run)
    assert {part["bytes"] for part in parts} == {None}
    assert [part["state"] for part in parts] == ["active"] * 2 + ["absent"] * 3 + ["active"]
    assert "not known" in rack_html(parts)


def test_a_damaged_manifest_is_named(run):
    (run.path / "rack" / "manifest.json").write_text("{")
    with pytest.raises(RuntimeError, match=r"rack/manifest.json: is damaged"):
        rack_parts(run)


def test_no_weights_are_read(run):
    for file in (run.path / "rack").glob("*.safetensors"):
        file.write_bytes(b"")
    assert len(rack_parts(run)) == 6


@pytest.mark.parametrize("count", [1, 24, 25, 80, 1024])
def test_every_part_is_in_the_picture_once_from_the_bottom(count):
    names = ["embedding", *(f"s{i}" for i in range(count)), "head"]
    parts = [
        {"name": name, "state": "trunk", "format": "nf4", "bytes": 10, "parameters": 5}
        for name in names
    ]
    html = rack_html(parts)
    rects = [r for r in ElementTree.fromstring(html).iter(f"{SVG}rect") if r.get("data-part")]
    assert [rect.get("data-part") for rect in rects] == names
    heights = [float(rect.get("y")) for rect in rects]
    assert heights == sorted(heights, reverse=True), "the embedding at the bottom"
    assert f"<figcaption>{count} stack{'s' * (count > 1)}; " in html
    assert len(html) < 1000 * (count + 6)


def test_stacks_that_are_not_there_yet_are_counted():
    states = ["trunk", "active", "absent", "absent"]
    parts = [{"name": f"s{i}", "state": state, "bytes": 1} for i, state in enumerate(states)]
    assert "<figcaption>4 stacks, 2 of them there; " in rack_html(parts)
    assert "<figcaption>2 stacks; " in rack_html(parts[:2])


def test_no_two_lines_of_text_meet():
    states = ["trunk", "active", "absent", "held", "suffix"]
    parts = [
        {"name": f"s{i}", "state": states[i * 7 % 5], "bytes": i, "parameters": i}
        for i in range(200)
    ]
    root = ElementTree.fromstring(rack_html(parts))
    for x in {text.get("x") for text in root.iter(f"{SVG}text")}:
        ys = sorted(float(t.get("y")) for t in root.iter(f"{SVG}text") if t.get("x") == x)
        assert all(b - a >= 11 for a, b in pairwise(ys))


def test_what_is_missing_or_no_number_is_said_in_words():
    parts = [
        {"name": "<script>&\x00\ud800", "state": "a word of mine", "bytes": float("nan")},
        {"name": "s0", "state": "active", "bytes": float("inf"), "parameters": None},
        {"state": None},
    ]
    html = rack_html(parts)
    ElementTree.fromstring(html)
    assert "<script" not in html
    for words in ("not a number", "infinite", "not known", "a word of mine"):
        assert words in html
    assert "a rack without parts" in rack_html([])
