"""A file is the old or the new one; a line is there or not."""

from __future__ import annotations

import os

import pytest

from stackwise.atomic import append, replacing, sweep, write_text


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "status.json"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk) -> None:
    path = tmp_path / "status.json"
    write_text(path, "old")
    with full_disk(1000), pytest.raises(OSError, match="File too large"):
        write_text(path, "n" * 2000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_append_to_a_full_disk_leaves_whole_lines(tmp_path, full_disk) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("ab", buffering=0) as file:
        append(file, b"one\n")
        with full_disk(7), pytest.raises(OSError, match=f"File too large: '{path}'"):
            append(file, b"four\n")
        assert path.read_bytes() == b"one\n"
        append(file, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_replaced_file_can_be_read_by_whom_the_umask_allows(tmp_path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_what_a_kill_left_half_written_is_swept_away(tmp_path) -> None:
    (tmp_path / ".status.json.4711-0.part").write_text("ha")
    (tmp_path / "status.json").write_text("whole")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]
