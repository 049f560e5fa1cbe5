"""Writing a cache: in order, by one thread, and no whole shard is lost."""

from __future__ import annotations

import os
import resource
import signal
import threading

import pytest
import torch

from stackwise.trunk import shardfile
from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.shards import Layout
from stackwise.trunk.writer import CacheWriter

LAYOUT = Layout(rows=10, tokens=3, width=4, dtype="float32", group=2, shard_bytes=4 * 48)
ROWS_BTD = torch.arange(10 * 3 * 4, dtype=torch.float32).reshape(10, 3, 4)


def whole(folder) -> bool:
    return torch.equal(TrunkCache(folder, "key").read(0, 10, torch.float32), ROWS_BTD)


def test_leaving_by_an_error_keeps_whole_shards_alone(tmp_path):
    with pytest.raises(KeyError), CacheWriter(tmp_path, "key", LAYOUT) as writer:
        writer.write(0, ROWS_BTD[:5])
        raise KeyError("mine")
    assert writer.rows_done in (0, 4)  # what still waited was not written
    assert not [path.name for path in tmp_path.glob(".*.part")]
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        writer.write(writer.rows_done, ROWS_BTD[writer.rows_done :])
    assert whole(tmp_path)


def test_batches_of_any_size_make_the_same_files(tmp_path):
    for size in (1, 2, 3, 7, 10):
        with CacheWriter(tmp_path / str(size), "key", LAYOUT) as writer:
            for first in range(0, 10, size):
                writer.write(first, ROWS_BTD[first : first + size])
        files = sorted((tmp_path / str(size)).iterdir())
        assert [f.read_bytes() for f in files] == [
            f.read_bytes() for f in sorted((tmp_path / "1").iterdir())
        ]


def test_a_complete_cache_is_not_written_again(tmp_path, written):
    written(tmp_path, LAYOUT, ROWS_BTD)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*")}
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        assert writer.complete
        assert writer.rows_done == 10
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*")} == before


def test_a_listed_shard_that_is_gone_is_where_a_resumed_writer_goes_on(tmp_path, written):
    written(tmp_path, LAYOUT, ROWS_BTD)
    (tmp_path / "rows-000001.bin").unlink()
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        assert writer.rows_done == 4
        writer.write(4, ROWS_BTD[4:])
    assert whole(tmp_path)


def test_what_was_handed_over_may_be_written_to(tmp_path):
    x_BTD = ROWS_BTD.clone()
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        writer.write(0, x_BTD)
        x_BTD.zero_()
    assert whole(tmp_path)


def test_no_more_wait_than_may(tmp_path, monkeypatch):
    """The disk stands still: one batch is in hand and one waits, so the third is not taken."""
    gate, begun, second, taken = threading.Event(), threading.Event(), threading.Event(), []
    rows = shardfile.encode

    def held(*arguments):
        begun.set()
        assert gate.wait(10)
        return rows(*arguments)

    monkeypatch.setattr(shardfile, "encode", held)
    with CacheWriter(tmp_path, "key", LAYOUT, ahead=1) as writer:

        def hand_over():
            for first in (0, 2, 4):
                writer.write(first, ROWS_BTD[first : first + 2])
                taken.append(first)
                if first == 2:
                    second.set()

        giver = threading.Thread(target=hand_over)
        giver.start()
        assert begun.wait(10)
        assert second.wait(10)
        giver.join(0.2)
        assert giver.is_alive()
        assert taken == [0, 2]
        gate.set()
        giver.join(10)
        assert taken == [0, 2, 4]
        writer.write(6, ROWS_BTD[6:])
    assert whole(tmp_path)


def test_a_full_disk_is_said_and_what_is_whole_stays(tmp_path):
    """The kernel lets no file grow beyond 700 bytes, and a shard has 4800."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    wide = Layout(rows=10, tokens=3, width=400, dtype="float32", shard_bytes=1)
    writer = CacheWriter(tmp_path / "trunk", "key", wide)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        with pytest.raises(OSError) as error:
            for first in range(10):
                writer.write(first, torch.zeros(1, 3, 400))
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        writer.close(abandon=True)
    assert str(error.value) == (
        "trunk/rows-000000.bin: cannot be written: File too large; the shards before it "
        "are whole. Make room, and resume the run"
    )
    assert "stackwise-cache" not in [thread.name for thread in threading.enumerate()]
    assert not list((tmp_path / "trunk").glob(".*"))


@pytest.mark.parametrize(
    ("first", "shape", "text"),
    [
        (2, (2, 3, 4), "first_row: 2 is not the next one, 0; write rows in order"),
        (0, (2, 4, 4), "x_BTD: (2, 4, 4) must be (rows, 3, 4)"),
        (0, (2, 3), "x_BTD: (2, 3) must be (rows, 3, 4)"),
        (0, (11, 3, 4), "x_BTD: 11 rows from 0 on are over 10; give fewer"),
    ],
)
def test_other_rows_than_the_next_are_refused(tmp_path, first, shape, text):
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        with pytest.raises(ValueError) as error:
            writer.write(first, torch.zeros(shape))
        assert str(error.value) == text


def test_a_closed_writer_takes_no_more(tmp_path):
    with CacheWriter(tmp_path / "trunk", "key", LAYOUT) as writer:
        pass
    writer.close()
    with pytest.raises(RuntimeError, match=r"^trunk: its writer is closed; open another one$"):
        writer.write(0, ROWS_BTD)


@pytest.mark.parametrize("key", ["", "k" * 257])
def test_a_key_has_a_length(tmp_path, key):
    with pytest.raises(ValueError, match=r"must have 1 to 256 characters$"):
        CacheWriter(tmp_path, key, LAYOUT)


def test_no_queue_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^ahead: 0 must be 1 or more$"):
        CacheWriter(tmp_path, "key", LAYOUT, ahead=0)


def test_files_are_flushed_before_the_manifest_lists_them(tmp_path, monkeypatch):
    """Otherwise a power cut could leave a manifest that lists a shard of zeros."""
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("flush"), fsync(handle))[1])
    monkeypatch.setattr(
        os, "replace", lambda a, b: (calls.append(b.name.partition("-")[0]), replace(a, b))[1]
    )
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        calls.clear()
        writer.write(0, ROWS_BTD[:4])
    assert calls == ["flush", "rows", "flush", "flush", "cache.json", "flush"]
