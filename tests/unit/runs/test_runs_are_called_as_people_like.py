"""Names, notes and tags of runs; they decide nothing, and break nothing."""

from __future__ import annotations

import json

import pytest

from stackwise.runs.labels import Labels, read_labels, write_labels


def test_what_is_given_changes_and_the_rest_stays(tmp_path) -> None:
    assert read_labels(tmp_path) == Labels()
    write_labels(tmp_path, name=" first ", tags=["a", "b", "a", ""])
    write_labels(tmp_path, note="two\nlines")
    assert read_labels(tmp_path) == Labels("first", "two\nlines", ("a", "b"))
    write_labels(tmp_path, name="", tags=())
    assert read_labels(tmp_path) == Labels("", "two\nlines", ())


def test_one_word_is_one_tag(tmp_path) -> None:
    assert write_labels(tmp_path, tags="abc").tags == ("abc",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "x" * 81}, "name: has 81 characters, and 80 are allowed; shorten it"),
        ({"tags": ["x" * 41]}, "tag: has 41 characters, and 40 are allowed; shorten it"),
        ({"name": "a\x1bb"}, "name: 'a\\x1bb' holds characters that do not print; leave them out"),
        ({"note": "x" * 10_001}, "note: has 10001 characters, and 10000 are allowed; shorten it"),
        (
            {"note": "a\ud800"},
            "note: 'a\\ud800' holds characters that do not print; leave them out",
        ),
        (
            {"name": "\u202eb"},
            "name: '\\u202eb' holds characters that do not print; leave them out",
        ),
        ({"name": 5}, "name: 5 is no text; put it in quotes"),
        ({"note": ["x"]}, "note: ['x'] is no text; put it in quotes"),
        ({"tags": [1]}, "tag: 1 is no text; put it in quotes"),
        ({"tags": 5}, "tags: 5 is no list of words"),
        ({"tags": map(str, range(101))}, "tags: there are 101, and 100 are allowed; drop some"),
    ],
)
def test_what_cannot_be_a_label_is_refused(tmp_path, change, said) -> None:
    write_labels(tmp_path, name="kept")
    with pytest.raises(ValueError) as error:
        write_labels(tmp_path, **change)
    assert str(error.value) == said
    assert read_labels(tmp_path) == Labels("kept")


@pytest.mark.parametrize("name", ["a\u00a0b", "👩\u200d💻", "naïve 名", "\u0645\u06cc\u200c\u062e"])
def test_what_prints_is_a_name(tmp_path, name) -> None:
    assert write_labels(tmp_path, name=name, tags=[name]) == Labels(name, "", (name,))
    assert read_labels(tmp_path) == Labels(name, "", (name,))


def test_lines_of_another_system_are_lines(tmp_path) -> None:
    assert write_labels(tmp_path, note="a\r\nb\tc").note == "a\nb\tc"


def test_a_pasted_note_is_what_is_seen_of_it(tmp_path) -> None:
    labels = write_labels(tmp_path, note="\x1b[31mred\x00 \u200f")
    assert labels == read_labels(tmp_path) == Labels(note="[31mred \u200f")


def test_of_a_strangers_labels_there_is_what_could_be_written_here(tmp_path) -> None:
    evil = "\x1b[2Jevil\nline\u202e"
    found = {"name": evil, "note": f"{evil}\r\ud800", "tags": [evil, 5, "ok", ["x"], evil]}
    (tmp_path / "labels.json").write_text(json.dumps(found))
    assert read_labels(tmp_path) == Labels(
        "[2Jevilline", "[2Jevil\nline\u202e", ("[2Jevilline", "ok")
    )
    found = {"name": "x" * 1000, "note": "y" * 20_000, "tags": [f"{n:050d}" for n in range(200)]}
    (tmp_path / "labels.json").write_text(json.dumps(found))
    labels = read_labels(tmp_path)
    assert (labels.name, labels.note, labels.tags) == ("x" * 80, "y" * 10_000, ("0" * 40,))


def test_what_was_cut_can_be_written_again(tmp_path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"name": "x" * 1000, "note": "\x1b"}))
    assert write_labels(tmp_path, tags=["a"]) == Labels("x" * 80, "", ("a",))


@pytest.mark.parametrize("text", ["{", "[]", '{"tags": 3}', '{"name": {}}', "\x00"])
def test_a_damaged_file_is_none(tmp_path, text) -> None:
    (tmp_path / "labels.json").write_text(text)
    assert read_labels(tmp_path) == Labels()
