"""A shard that was altered: no row of it is read, its rows are named, and they are made again."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from stackwise.trunk.cache import Check, TrunkCache
from stackwise.trunk.shardfile import rebuild
from stackwise.trunk.shards import CacheError, DamagedShard, Layout

LAYOUT = Layout(rows=10, tokens=3, width=4, dtype="bfloat16", group=2, shard_bytes=4 * 24)
ROWS_BTD = torch.arange(10 * 3 * 4, dtype=torch.bfloat16).reshape(10, 3, 4)


@pytest.fixture
def folder(tmp_path, written):
    return written(tmp_path / "trunk", LAYOUT, ROWS_BTD)


def flip(folder, shard=1, place=50):
    path = folder / f"rows-{shard:06d}.bin"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_an_altered_shard_is_named_and_never_read(folder):
    flip(folder)
    cache = TrunkCache(folder, "key")
    for first, count in ((4, 1), (7, 1), (3, 2), (0, 10)):
        with pytest.raises(DamagedShard) as damage:
            cache.read(first, count, torch.bfloat16)
        assert (damage.value.shard, damage.value.rows) == (1, range(4, 8))
    assert str(damage.value) == (
        "trunk/rows-000001.bin: is not what was written (its hash differs); its rows 4 to 7 must "
        "be made again: rebuild shard 1"
    )
    assert torch.equal(cache.read(8, 6, torch.bfloat16), ROWS_BTD[[8, 9, 0, 1, 2, 3]])


def test_the_thread_gives_what_lies_before_the_damage(folder):
    flip(folder)
    seen = 0
    with (
        pytest.raises(DamagedShard),
        TrunkCache(folder, "key").batches(0, 1, 10, dtype=torch.bfloat16) as batches,
    ):
        for row, x_BTD in enumerate(batches):
            assert torch.equal(x_BTD[0], ROWS_BTD[row])
            seen += 1
    assert seen == 4


def test_damage_behind_what_is_read_is_nobodys_business(folder):
    flip(folder)
    with TrunkCache(folder, "key").batches(0, 1, 4, dtype=torch.bfloat16) as batches:
        assert sum(1 for _ in batches) == 4


def test_a_rebuilt_shard_is_read_again_and_the_others_are_not_written(folder):
    flip(folder)
    cache = TrunkCache(folder, "key")
    with pytest.raises(DamagedShard) as damage:
        cache.read(0, 10, torch.bfloat16)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    rows = damage.value.rows
    groups = (ROWS_BTD[first : first + 2] for first in rows[:: LAYOUT.group])
    assert cache.rebuild(damage.value.shard, groups)
    assert torch.equal(cache.read(0, 10, torch.bfloat16), ROWS_BTD)
    changed = {path.name for path in folder.iterdir() if path.stat().st_ino != before[path]}
    assert changed == {"rows-000001.bin"}


def test_rows_that_come_out_otherwise_are_said_and_kept(folder):
    """On another machine the last bits may differ: then the manifest says the new ones."""
    flip(folder)
    cache = TrunkCache(folder, "key")
    assert not cache.rebuild(1, [ROWS_BTD[4:8] + 1])
    wanted_BTD = ROWS_BTD.clone()
    wanted_BTD[4:8] += 1
    assert torch.equal(cache.read(0, 10, torch.bfloat16), wanted_BTD)
    assert torch.equal(TrunkCache(folder, "key").read(0, 10, torch.bfloat16), wanted_BTD)


def test_a_shard_that_is_already_read_is_rebuilt_under_its_reader(folder):
    cache = TrunkCache(folder, "key")
    assert torch.equal(cache.read(0, 10, torch.bfloat16), ROWS_BTD)
    assert not cache.rebuild(1, [ROWS_BTD[4:8] + 1])
    assert torch.equal(cache.read(4, 4, torch.bfloat16), ROWS_BTD[4:8] + 1)


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: os.truncate(path, 9)])
def test_a_missing_or_cut_shard_is_refused_at_once(folder, change):
    change(folder / "rows-000002.bin")
    with pytest.raises(DamagedShard) as damage:
        TrunkCache(folder, "key")
    assert str(damage.value) == (
        "trunk/rows-000002.bin: is missing or cut; its rows 8 to 9 must be made again: rebuild "
        "shard 2"
    )
    assert rebuild(folder, "key", damage.value.shard, [ROWS_BTD[8:]])
    assert torch.equal(TrunkCache(folder, "key").read(0, 10, torch.bfloat16), ROWS_BTD)


def test_a_shard_that_is_cut_while_it_is_read_does_not_end_the_process(folder):
    """Reading a mapped page beyond a file's end is a signal that nobody survives."""
    cache = TrunkCache(folder, "key")
    cache.read(0, 10, torch.bfloat16)
    os.truncate(folder / "rows-000001.bin", 0)
    with pytest.raises(DamagedShard, match="is missing or cut"):
        cache.read(4, 1, torch.bfloat16)


def test_a_shard_that_the_disk_does_not_give_is_damaged(folder, monkeypatch):
    cache = TrunkCache(folder, "key")

    def broken(memory):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("stackwise.trunk.cache.bring", broken)
    with pytest.raises(DamagedShard, match=r"^trunk/rows-000000.bin: cannot be read: Input/output"):
        cache.read(0, 1, torch.bfloat16)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can say so")
def test_a_mapped_page_that_the_disk_does_not_give_is_damage(folder, monkeypatch):
    """The file is cut between the look at its size and the first touch: by that, a bus error."""
    cache = TrunkCache(folder, "key")
    find = TrunkCache._map

    def cut(self, shard):
        memory = find(self, shard)
        os.truncate(folder / f"rows-{shard:06d}.bin", 0)
        return memory

    monkeypatch.setattr(TrunkCache, "_map", cut)
    with pytest.raises(DamagedShard, match=r"^trunk/rows-000000.bin: cannot be read: Input/output"):
        cache.read(0, 1, torch.bfloat16)


def test_each_shard_is_hashed_once_and_the_next_one_meanwhile(folder, monkeypatch):
    """By the time a shard is reached, the thread has hashed it in pieces beside the one before."""
    asked = []
    advance = Check.advance

    def noted(self, count):
        asked.append((self.shard, count))
        return advance(self, count)

    monkeypatch.setattr(Check, "advance", noted)
    cache = TrunkCache(folder, "key")
    with cache.batches(0, 1, 40, dtype=torch.bfloat16) as batches:
        assert sum(1 for _ in batches) == 40
    assert [shard for shard, count in asked if count is None] == [0]
    assert {shard for shard, _ in asked} == {0, 1, 2}
    assert len(asked) < 12  # of 40 batches, the rest hashed nothing


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (3, "batches: must have 4 rows, those of shard 1; they had fewer"),
        (5, "batches: must have 4 rows, those of shard 1; they had more"),
    ],
)
def test_too_few_or_too_many_rows_are_refused(folder, rows, text):
    with pytest.raises(ValueError) as error:
        rebuild(folder, "key", 1, [ROWS_BTD[:rows]])
    assert str(error.value) == text


@pytest.mark.parametrize("shard", [-1, 3])
def test_a_shard_that_there_is_not_is_refused(folder, shard):
    with pytest.raises(CacheError) as error:
        rebuild(folder, "key", shard, [ROWS_BTD[:1]])
    assert str(error.value) == (f"trunk: has no shard {shard} to rebuild; write the cache first")
