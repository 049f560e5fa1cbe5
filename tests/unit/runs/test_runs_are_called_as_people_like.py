"""Names, notes and tags of runs; they decide nothing, and break nothing."""

from __future__ import annotations

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
    ],
)
def test_what_cannot_be_a_label_is_refused(tmp_path, change, said) -> None:
    write_labels(tmp_path, name="kept")
    with pytest.raises(ValueError) as error:
        write_labels(tmp_path, **change)
    assert str(error.value) == said
    assert read_labels(tmp_path) == Labels("kept")


@pytest.mark.parametrize("text", ["{", "[]", '{"tags": 3}', '{"name": {}}', "\x00"])
def test_a_damaged_file_is_none(tmp_path, text) -> None:
    (tmp_path / "labels.json").write_text(text)
    assert read_labels(tmp_path).tags == ()
