"""Metrics: readable while they are written, each step once, whatever was cut."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stackwise.runs.metrics import COLUMNS, MetricLog, compact, read_metrics, read_segment

SHORT = {"step": "int64", "loss": "float64", "norms": "list"}


@pytest.fixture
def attempt(tmp_path):
    """`attempt(2, first, last)` writes an attempt whose loss is its own number."""

    def write(number: int, first: int, last: int, columns=SHORT) -> MetricLog:
        log = MetricLog(tmp_path / "metrics" / f"{number:04d}.arrows", columns)
        for step in range(first, last + 1):
            log.write({"step": step, "loss": float(number), "norms": [step, math.nan]})
            log.flush()
        return log

    return write


def losses(folder) -> dict[int, float]:
    frame = read_metrics(folder)
    assert frame["step"].is_unique and frame["step"].is_monotonic_increasing
    return dict(zip(frame["step"], frame["loss"], strict=True))


def test_rows_can_be_read_before_the_stream_ends(attempt, tmp_path) -> None:
    log = attempt(1, 1, 2)
    assert losses(tmp_path) == {1: 1.0, 2: 1.0}
    log.write({"step": 3, "loss": math.inf, "norms": None})
    assert len(read_metrics(tmp_path)) == 2
    log.close()
    frame = read_metrics(tmp_path)
    assert frame["loss"].iloc[2] == math.inf and frame["norms"].iloc[2] is None
    one, nothing = frame["norms"].iloc[0]
    assert one == 1.0 and math.isnan(nothing)


def test_a_later_attempt_wins_from_its_first_step_on(attempt, tmp_path) -> None:
    attempt(1, 1, 9)
    attempt(2, 5, 7)
    assert losses(tmp_path) == {**dict.fromkeys(range(1, 5), 1.0), 5: 2.0, 6: 2.0, 7: 2.0}
    attempt(3, 8, 7)
    assert len(losses(tmp_path)) == 7
    attempt(10, 3, 3)
    assert losses(tmp_path) == {1: 1.0, 2: 1.0, 3: 10.0}
    attempt(11, 4, 4)
    assert losses(tmp_path) == {1: 1.0, 2: 1.0, 3: 10.0, 4: 11.0}


def test_a_stream_cut_at_any_byte_has_its_whole_batches(attempt, tmp_path) -> None:
    attempt(1, 1, 3)
    path = tmp_path / "metrics" / "0001.arrows"
    whole = path.read_bytes()
    rows = []
    for cut in range(0, len(whole) + 1, 8):
        path.write_bytes(whole[:cut])
        table = read_segment(path)
        rows.append(0 if table is None else len(table))
    assert rows == sorted(rows) and set(rows) == {0, 1, 2, 3}


def test_a_full_disk_loses_no_row(attempt, tmp_path, full_disk) -> None:
    log = attempt(1, 1, 1)
    log.write({"step": 2, "loss": 0.0})
    with full_disk(log.file.tell() + 9), pytest.raises(OSError, match="File too large"):
        log.flush()
    assert len(read_metrics(tmp_path)) == 1
    log.close()
    assert list(losses(tmp_path)) == [1, 2]


def test_attempts_may_declare_different_columns(attempt, tmp_path) -> None:
    attempt(1, 1, 2)
    log = MetricLog(tmp_path / "metrics" / "0002.arrows", {"step": "int64", "extra": "float64"})
    log.write({"step": 3, "extra": 0.5})
    log.close()
    frame = read_metrics(tmp_path)
    assert list(frame.columns) == ["step", "loss", "norms", "extra"]
    assert frame["extra"].isna().tolist() == [True, True, False]


def test_a_column_that_was_not_declared_is_refused(attempt) -> None:
    with pytest.raises(ValueError) as error:
        attempt(1, 1, 1).write({"step": 2, "los": 1.0})
    assert str(error.value) == "metrics: 'los' is no column; declared are step, loss, norms"


def test_the_compacted_file_says_the_same(attempt, tmp_path) -> None:
    attempt(1, 1, 9)
    attempt(2, 5, 12)
    before = read_metrics(tmp_path)
    compact(tmp_path)
    after = read_metrics(tmp_path)
    assert before.drop(columns="norms").equals(after.drop(columns="norms"))
    assert all(map(np.array_equal, *(f["norms"].map(np.nan_to_num) for f in (before, after))))


def test_a_damaged_compacted_file_hides_nothing(attempt, tmp_path) -> None:
    attempt(1, 1, 3)
    (tmp_path / "metrics.parquet").write_bytes(b"PAR1 but not really")
    assert len(losses(tmp_path)) == 3


def test_no_metrics_yet_is_an_empty_frame_with_columns(tmp_path) -> None:
    frame = read_metrics(tmp_path)
    assert len(frame) == 0 and list(frame.columns) == list(COLUMNS)
