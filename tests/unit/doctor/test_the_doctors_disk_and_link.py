"""Rates of the disk and the link: what cannot be written, or comes back otherwise, is found."""

from __future__ import annotations

import errno
import os

import pytest

from stackwise.planner.doctor import disk, link

SMALL = 16 << 20


@pytest.fixture(autouse=True)
def a_small_file(monkeypatch) -> None:
    monkeypatch.setattr(disk, "MOST", SMALL)
    monkeypatch.setattr(disk, "LEAST", SMALL)


def test_this_disk_writes_and_reads_what_was_written(visit, tmp_path) -> None:
    found = disk.disk(visit())
    assert found.state == "ok"
    assert found.figures["bytes"] == SMALL and found.figures["intact"]
    rate = found.figures["read_bytes_per_second"]
    assert found.figures["pass_seconds"] == pytest.approx(disk.trunk_bytes() / rate)
    assert f"takes {found.figures['pass_seconds']:.0f} s for each forward pass" in found.means
    assert not any(tmp_path.iterdir())


def test_the_trunk_is_that_of_seventy_billion_by_hand() -> None:
    # 8192 wide, 8 of 64 heads for keys and values, a gated feed-forward of 28672; 4.5 bits each.
    attention = 8192 * (8192 + 2 * 1024 + 8192)
    assert disk.trunk_bytes() == 80 * (attention + 3 * 8192 * 28672) * 9 // 16
    assert round(disk.trunk_bytes() / 1e9, 1) == 38.5


def test_a_folder_that_cannot_be_written_fails(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    found = disk.judged(disk.rates(str(tmp_path / "file"), SMALL), 1)
    assert found.state == "failed"
    assert found.measured == "Not a directory after 0 MiB"
    assert "placement.runs_dir=DIR" in found.to_do


def test_a_disk_that_is_full_fails_and_keeps_nothing(visit, tmp_path, monkeypatch) -> None:
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk.os, "fsync", full)
    found = disk.disk(visit())
    assert found.state == "failed"
    assert found.measured == "No space left on device after 16 MiB"
    assert not any(tmp_path.iterdir())


def test_a_disk_that_gives_other_bytes_fails(visit, monkeypatch) -> None:
    right = os.readv

    def wrong(handle, buffers):
        got = right(handle, buffers)
        buffers[0][12345] ^= 1
        return got

    monkeypatch.setattr(disk.os, "readv", wrong)
    found = disk.disk(visit())
    assert found.state == "failed" and "other bytes than were written" in found.measured


def test_a_slow_disk_is_told_what_else_to_do() -> None:
    rates = {"bytes": SMALL, "intact": True, "past_the_cache": True}
    rates |= {"write_bytes_per_second": 1e8, "read_bytes_per_second": 1e8}
    found = disk.judged(rates, 38_500_000_000)
    assert found.state == "ok" and "38.5 GB, streamed from it takes 385 s" in found.means
    assert found.means.endswith("use stream_from=host, trunk=cached or a faster disk")
    fast = disk.judged({**rates, "read_bytes_per_second": 1e9}, 38_500_000_000)
    assert "faster disk" not in fast.means


def test_where_the_cache_cannot_be_passed_it_is_said() -> None:
    rates = {"bytes": SMALL, "intact": True, "past_the_cache": False}
    rates |= {"write_bytes_per_second": 1e9, "read_bytes_per_second": 1e10}
    assert "reading may be slower" in disk.judged(rates, 1).measured


def test_without_direct_reading_the_cache_is_dropped(tmp_path, monkeypatch) -> None:
    dropped = []
    monkeypatch.setattr(disk, "_direct", lambda path: None)
    monkeypatch.setattr(disk.os, "posix_fadvise", lambda *words: dropped.append(words[1:]))
    assert disk.rates(str(tmp_path), SMALL)["intact"]
    assert dropped == [(0, 0, os.POSIX_FADV_DONTNEED)]


RATES = {"pinned_bytes_per_second": 5e10, "pageable_bytes_per_second": 1e10}
RATES |= {"back_bytes_per_second": 4e10, "intact": True}


def test_a_link_is_told_by_what_a_trunk_takes_over_it() -> None:
    found = link.judged(RATES, 38_500_000_000)
    assert found.state == "ok"
    assert found.measured.startswith("to the card 50.0 GB/s from pinned memory, 10.0 GB/s from")
    assert "takes 0.8 s for each forward pass" in found.means


def test_a_link_that_changes_bytes_fails() -> None:
    assert link.judged({**RATES, "intact": False}, 1).state == "failed"


def test_a_processor_has_no_link(visit) -> None:
    assert link.link(visit()).state == "skipped"


@pytest.mark.card
def test_a_card_here_has_one(visit) -> None:
    found = link.link(visit(device="cuda"))
    assert found.state == "ok"
    assert found.figures["pinned_bytes_per_second"] > 1e8
