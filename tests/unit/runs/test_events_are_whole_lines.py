"""Events: appended, numbered, readable whatever happened to the end of the file."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest

from stackwise.runs import event_lines, events
from stackwise.runs.event_lines import next_lines, written_line
from stackwise.runs.event_log import EventLog
from stackwise.runs.events import counted_once, read_events
from stackwise.runs.following import Follower

JUNK = (b"\x00\xff\n", b"17\n", b'{"kind": "a"\n', b"[" * 9999 + b"\n")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def test_an_event_says_when_which_attempt_and_what(path) -> None:
    log = EventLog(path, 3)
    log.write("eval", {"loss": 1.5, "exit_losses": (3.0, math.nan)})
    (event,) = read_events(path)
    assert {k: event[k] for k in ("seq", "attempt", "kind", "loss")} == {
        "seq": 0,
        "attempt": 3,
        "kind": "eval",
        "loss": 1.5,
    }
    assert math.isnan(event["exit_losses"][1])
    age = datetime.now(UTC) - datetime.fromisoformat(event["time"])
    assert 0 <= age.total_seconds() < 60


def test_an_event_can_be_read_as_soon_as_it_is_written(path) -> None:
    log = EventLog(path, 1)
    for seq in range(3):
        log.write("checkpoint", {})
        assert [event["seq"] for event in read_events(path)] == list(range(seq + 1))


def test_a_cut_line_is_skipped_and_then_dropped(path) -> None:
    EventLog(path, 1).write("made", {})
    with path.open("a") as file:
        file.write('{"seq": 1, "kind": "ev')
    assert [event["kind"] for event in read_events(path)] == ["made"]
    EventLog(path, 2).write("resumed", {})
    assert [(e["seq"], e["kind"]) for e in read_events(path)] == [(0, "made"), (1, "resumed")]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_damaged_line_hides_no_other(path) -> None:
    log = EventLog(path, 1)
    log.write("a", {})
    for junk in JUNK:
        log.file.write(junk)
    log.file.write(written_line({"seq": 5, "kind": "b"}).encode())
    EventLog(path, 2).write("c", {})
    kinds = [event["kind"] for event in read_events(path)]
    assert kinds == ["a", *["damaged_line"] * 4, "b", "c"]


def test_damaged_lines_at_the_end_make_room(path) -> None:
    """As a power cut leaves them: what was not flushed may be there in length only."""
    EventLog(path, 1).write("a", {})
    with path.open("ab") as file:
        file.write(b"".join(JUNK))
    assert len(read_events(path)) == 1 + len(JUNK)
    log = EventLog(path, 2)
    log.write("b", {})
    assert log.damaged == len(JUNK)
    assert [(e["seq"], e["kind"]) for e in read_events(path)] == [(0, "a"), (1, "b")]
    assert EventLog(path, 3).damaged == 0


def test_a_full_disk_leaves_whole_lines(path, full_disk) -> None:
    log = EventLog(path, 1)
    log.write("a", {})
    with full_disk(path.stat().st_size + 5), pytest.raises(OSError, match="File too large"):
        log.write("b", {})
    log.write("c", {})
    assert [(e["seq"], e["kind"]) for e in read_events(path)] == [(0, "a"), (1, "c")]


def test_a_field_that_every_event_has_is_refused(path) -> None:
    with pytest.raises(ValueError) as error:
        EventLog(path, 1).write("eval", {"time": 3})
    assert str(error.value) == "event 'eval': the field 'time' is filled in; rename yours"


def test_of_steps_taken_twice_the_later_attempt_counts() -> None:
    events = [
        {"attempt": attempt, "step": step, "n": n}
        for n, (attempt, step) in enumerate([(1, 2), (1, 4), (1, 6), (2, 4), (3, 4), (3, 6)])
    ]
    assert [event["n"] for event in counted_once([*events, {"kind": "other"}])] == [0, 4, 5]


def test_no_file_is_no_event(path) -> None:
    assert read_events(path) == []


@pytest.mark.parametrize("damage", [None, b'"b"', b"crc"])
def test_some_kinds_are_those_of_all(path, damage) -> None:
    log = EventLog(path, 1)
    for kind in ("a", "b", "c", "b", "damaged_line", "a"):
        log.write(kind, {"of": "a", "b": "c"})
    if damage is not None:
        text = path.read_bytes()
        path.write_bytes(text.replace(damage, damage[::-1].swapcase(), 3))
    every = read_events(path)
    for kinds in ("a",), ("c",), ("b", "a"), ("damaged_line",), ("a", "damaged_line"), ("of",):
        with path.open("rb") as file:
            found, _, _ = events.of_kinds(next_lines(file)[0], kinds)
        assert found == [event for event in every if event["kind"] in kinds]
        assert found == read_events(path, kinds[0]) or len(kinds) == 2


def test_what_was_compared_once_is_read_again_while_the_file_is_the_same(path) -> None:
    log = EventLog(path, 1)
    for n in range(3):
        log.write("a", {"n": n})
        log.write("b", {})
    path.open("ab").write(b'{"kind": "a", "n": 3')
    first = events.found_in(path, "a")
    assert first.whole is not None and events.found_in(path, "a", first.whole) == first

    path.open("ab").write(b"\n")
    later = events.found_in(path, "a", first.whole)
    assert later.whole is None and (later.lines, later.damaged) == (7, 1)

    text = path.read_bytes()
    path.write_bytes(text[:-21].replace(b'"b"', b'"c"', 1))
    assert events.found_in(path, "a", first.whole).damaged == 1
    path.write_bytes(text[:-21].replace(b'"n": 1', b'"n": 5'))
    with path.open("rb") as file:
        as_if_unchanged = events.Whole(events.stamp_of(file), 6)
    found = events.found_in(path, "a", as_if_unchanged)
    assert [event["n"] for event in found.events] == [0, 2] and found.damaged == 1


def test_an_altered_digit_is_a_damaged_line(path) -> None:
    log = EventLog(path, 1)
    for loss in (1.25, 2.5):
        log.write("eval", {"loss": loss})
    path.write_text(path.read_text().replace("1.25", "1.35"))
    assert [event["kind"] for event in read_events(path)] == ["damaged_line", "eval"]
    path.write_text("".join(f"{line[:-20]}}}\n" for line in path.read_text().splitlines()))
    assert [event["loss"] for event in read_events(path)] == [1.35, 2.5], "as older runs wrote it"


def test_every_flipped_bit_of_a_line_is_seen(path) -> None:
    EventLog(path, 1).write("eval", {"loss": 1.25})
    line = path.read_bytes()
    for place in range(len(line) - 1):
        for bit in range(8):
            flipped = bytes([line[place] ^ 1 << bit])
            path.write_bytes(line[:place] + flipped + line[place + 1 :])
            kinds = {event["kind"] for event in read_events(path)}
            assert kinds == {"damaged_line"}, (place, bit)


def test_what_could_not_be_taken_back_is_gone_with_the_next_line(path, full_disk) -> None:
    log = EventLog(path, 1)
    log.write("a", {})
    path.open("ab").write(b'{"seq": 1, "ki')  # a piece of a line that was refused
    log.write("b", {})
    assert [event["kind"] for event in read_events(path)] == ["a", "b"]


@pytest.mark.parametrize("size", [10, 99, 100, 101, 250, 1000])
def test_a_line_without_end_is_damaged_and_not_held(path, size, monkeypatch) -> None:
    monkeypatch.setattr(event_lines, "LONGEST", 100)
    whole = b'{"kind": "a"}\n'
    path.write_bytes(whole + b"x" * size + b"\n" + whole * 20)
    with path.open("rb") as file:
        lines, end = next_lines(file)
    assert max(map(len, lines)) <= 200 and end == path.stat().st_size
    wanted = ["a", "damaged_line", *["a"] * 20]
    assert [event["kind"] for event in read_events(path)] == wanted
    follower = Follower(path.parent)
    assert follower.read() and (follower.lines, follower.damaged) == (22, 1)


def test_a_file_as_long_as_a_disk_is_not_read(path) -> None:
    EventLog(path, 1).write("made", {})
    with path.open("ab") as file:
        file.truncate(1 << 41)
    acts = (lambda: read_events(path), Follower(path.parent).read, lambda: EventLog(path, 2))
    for act in acts:
        with pytest.raises(OSError, match="is over 1073741824 bytes long, which events"):
            act()
