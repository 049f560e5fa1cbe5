"""Reading a growing folder piece by piece gives what reading it at once gives."""

from __future__ import annotations

import shutil
from dataclasses import fields, is_dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise.runs.coarse import Coarse
from stackwise.runs.events import counted_once, read_events
from stackwise.runs.following import NUMBERS, SHOWN, Follower
from stackwise.runs.metrics import read_metrics
from stackwise_widgets.charts import Reader


def same(a, b) -> bool:
    if is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.name != "version"
        )
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def holds_what_the_folder_says(follower: Follower) -> None:
    folder = follower.folder
    events = read_events(folder / "events.jsonl")
    good = [event for event in events if event["kind"] != "damaged_line"]
    told = [event for event in good if event["kind"] in SHOWN]
    assert follower.lines == len(events) and follower.events == told
    assert follower.damaged == len(events) - len(good)
    assert follower.looks == counted_once([e for e in good if e["kind"] == "eval"])
    frame = read_metrics(folder)
    for name in NUMBERS:
        np.testing.assert_array_equal(follower.numbers(name), frame[name].to_numpy(float))


@pytest.fixture
def twice(made, attempt):
    """A run of two attempts, the second of which takes steps 5 to 8 again, in several batches."""
    run = made()
    first = attempt(run, 1, 4, close=None)
    first.flush()
    first.close("stopped")
    attempt(run, 3, 8, close="stopped", change=lambda step: {"loss": 2.0})
    attempt(run, 6, 10, change=lambda step: {"loss": 3.0})
    (run.path / "metrics.parquet").unlink()
    return run


@pytest.mark.parametrize("size", [1, 7, 64, 333])
def test_events_read_at_every_cut_are_those_of_the_cut(twice, tmp_path, size) -> None:
    whole = (twice.path / "events.jsonl").read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    follower = Follower(folder)
    for cut in range(0, len(whole) + size, size):
        (folder / "events.jsonl").write_bytes(whole[:cut])
        follower.read()
        if size > 1 or cut % 50 == 0:
            holds_what_the_folder_says(follower)
    holds_what_the_folder_says(follower)
    assert follower.lines == whole.count(b"\n")


def test_metrics_read_at_every_cut_are_those_of_the_cut(twice, tmp_path) -> None:
    folder = tmp_path / "cut"
    (folder / "metrics").mkdir(parents=True)
    (folder / "events.jsonl").touch()
    follower, rows = Follower(folder), []
    for path in sorted((twice.path / "metrics").glob("*.arrows")):
        whole = path.read_bytes()
        for cut in range(0, len(whole) + 8, 8):
            (folder / "metrics" / path.name).write_bytes(whole[:cut])
            follower.read()
            rows.append(follower.count)
            holds_what_the_folder_says(follower)
    assert follower.numbers("step").tolist() == list(range(1, 11))
    assert follower.numbers("loss").tolist() == [2.0, 1.5, *[2.0] * 3, *[3.0] * 5]
    assert {0, 4, 8, 10} <= set(rows)


def test_a_reader_that_went_along_shows_what_a_new_one_shows(twice, tmp_path) -> None:
    folder = shutil.copytree(twice.path, tmp_path / "copy")
    run = type(twice)(folder)
    events = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    streams = sorted((folder / "metrics").glob("*.arrows"))
    whole = [path.read_bytes() for path in streams]
    for path in streams:
        path.unlink()
    reader = Reader(run)
    for number in range(len(events) + 1):
        (folder / "events.jsonl").write_bytes(b"".join(events[:number]))
        for at, path in enumerate(streams):
            if number > at * len(events) // 3:
                path.write_bytes(whole[at])
        assert same(reader.read(), Reader(run).read())
    assert reader.view is not None and reader.view.step == 10


def test_what_is_not_shown_is_counted_and_not_held(twice) -> None:
    """Statistics of blocks are most of the bytes of a run that is looked at often."""
    follower = Follower(twice.path)
    follower.read()
    before, lines = list(follower.events), follower.lines
    with (twice.path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "statistics", "step": 9, "blocks": {}}\n')
    assert follower.read() and not follower.read()
    assert follower.events == before and follower.lines == lines + 1


def test_nothing_new_is_the_same_view(twice) -> None:
    reader = Reader(twice)
    first = reader.read()
    assert reader.read() is first
    with (twice.path / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "note"}\n')
    assert reader.read().version == first.version + 1


def test_a_file_that_was_put_back_shorter_is_read_anew(twice) -> None:
    follower = Follower(twice.path)
    follower.read()
    path = twice.path / "events.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    stream = twice.path / "metrics" / "0003.arrows"
    stream.write_bytes(stream.read_bytes()[:-900])
    follower.read()
    holds_what_the_folder_says(follower)


def test_a_run_of_which_only_the_compacted_file_is_left_is_read(trained) -> None:
    run = trained()
    before = Reader(run).read()
    shutil.rmtree(run.path / "metrics")
    assert same(Reader(run).read(), before)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), min_size=1, max_size=12),
       st.integers(4, 40))  # fmt: skip
def test_coarse_columns_hold_the_largest_of_their_steps_however_they_came(pieces, most) -> None:
    counts = [count for _, count in pieces]
    total = sum(counts)
    step, stage = np.arange(1.0, total + 1), np.sort(np.arange(total) % 3).astype(float)
    value = np.random.default_rng(total).random((total, 2))
    value[:: 1 + pieces[0][0]] = np.nan
    at_once, piecewise = Coarse(most), Coarse(most)
    at_once.add(step, stage, value)
    ends = np.cumsum(counts)
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        piecewise.add(step[first:last], stage[first:last], value[first:last])
    for name in ("stage", "last", "largest", "missing"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(piecewise, name))
    begin = 0
    for column, end in enumerate(at_once.last.astype(int)):
        piece = value[begin:end]
        assert set(stage[begin:end]) == {at_once.stage[column]}
        largest = np.fmax.reduce(piece, axis=0)
        np.testing.assert_array_equal(at_once.largest[column], largest)
        np.testing.assert_array_equal(at_once.missing[column], np.isnan(piece).any(0))
        begin = end
    assert begin == total and len(at_once.last) <= max(most, 6)
