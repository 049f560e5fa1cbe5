"""The last event of a kind is found from the end of the file, whatever lies around it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stackwise.runs.events import read_events
from stackwise.runs.tail import TAIL_BYTES, last_event

lines = st.lists(
    st.sampled_from(
        [
            '{"kind": "result", "n": 1}',
            '{"kind": "note", "text": "a \\"result\\""}',
            '{"kind": "result"',
            "[]",
            "",
            '{"kind": "eval", "pad": "' + "x" * (TAIL_BYTES // 3) + '"}',
        ]
    ),
    max_size=8,
)


@given(lines, st.booleans())
def test_it_is_the_last_of_all_events(tmp_path_factory, found, whole_end) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    numbered = [line.replace('"n": 1', f'"n": {n}') for n, line in enumerate(found)]
    path.write_text("".join(line + "\n" for line in numbered)[: None if whole_end else -1])
    slow = [event for event in read_events(path) if event.get("kind") == "result"]
    assert last_event(path, "result", whole=True) == (slow[-1] if slow else None)
    near = path.read_bytes()[-TAIL_BYTES:].decode().split("\n")
    if slow and json.dumps(slow[-1]) in near[1 if path.stat().st_size > TAIL_BYTES else 0 : -1]:
        assert last_event(path, "result") == slow[-1]


def test_no_file_is_no_event(tmp_path) -> None:
    assert last_event(tmp_path / "events.jsonl", "result", whole=True) is None


def test_an_event_far_back_is_looked_for_only_if_asked(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "result"}\n' + '{"kind": "x"}\n' * TAIL_BYTES)
    assert last_event(path, "result") is None
    assert last_event(path, "result", whole=True) == {"kind": "result"}


def test_a_file_that_cannot_be_read_is_said(tmp_path) -> None:
    with pytest.raises(IsADirectoryError):
        last_event(tmp_path, "result")
