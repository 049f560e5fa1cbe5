"""What is read is what was written, after rounding; and one complete cache of one thing is read."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise.jsontext import loads
from stackwise.trunk.cache import MAPS, TrunkCache
from stackwise.trunk.rounding import STORED, round_to
from stackwise.trunk.shards import CacheError, Layout
from stackwise.trunk.writer import CacheWriter

LAYOUT = Layout(rows=23, tokens=5, width=6, dtype="bfloat16", group=2, shard_bytes=400)


def random_rows(layout, dtype=torch.float32):
    generator = torch.Generator().manual_seed(layout.rows)
    return torch.randn(layout.rows, layout.tokens, layout.width, generator=generator).to(dtype)


@pytest.fixture
def made(tmp_path, written):
    return written(tmp_path / "trunk", LAYOUT, random_rows(LAYOUT))


@pytest.mark.parametrize("stored", list(STORED))
@settings(max_examples=25)  # every shard is flushed to the disk
@given(
    rows=st.integers(1, 12),
    tokens=st.integers(1, 4),
    width=st.integers(1, 5),
    group=st.integers(1, 4),
    shard_bytes=st.integers(1, 400),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    first=st.integers(0, 50),
    count=st.integers(1, 25),
)
def test_what_is_read_is_what_was_written(
    stored, tmp_path_factory, written, rows, tokens, width, group, shard_bytes, dtype, first, count
):
    layout = Layout(rows, tokens, width, stored, group, shard_bytes)
    x_BTD = random_rows(layout, dtype)
    folder = written(tmp_path_factory.mktemp("cache"), layout, x_BTD)
    cache = TrunkCache(folder, "key")
    numbers = [(first + n) % rows for n in range(count)]
    assert torch.equal(cache.read(first, count, dtype), round_to(x_BTD, stored)[numbers])
    with cache.batches(first, count, 3, dtype=dtype) as batches:
        for turn, read_BTD in enumerate(batches):
            numbers = [(first + turn * count + n) % rows for n in range(count)]
            assert torch.equal(read_BTD, round_to(x_BTD, stored)[numbers])
    assert turn == 2


def test_a_shard_holds_whole_groups_and_no_more_than_it_may():
    assert LAYOUT.row_bytes == 5 * 6 * 2
    assert LAYOUT.rows_per_shard == 6  # 6 rows of 60 bytes; a seventh would fit no whole group
    assert [LAYOUT.rows_of(shard) for shard in range(LAYOUT.shards)] == [
        range(0, 6),
        range(6, 12),
        range(12, 18),
        range(18, 23),
    ]
    assert Layout(9, 5, 6, "bfloat16", group=4, shard_bytes=1).rows_per_shard == 4


def test_batches_go_round_and_round(made):
    """A hundred times through all rows, with batches that straddle shards and the end."""
    cache = TrunkCache(made, "key")
    truth_BTD = round_to(random_rows(LAYOUT), "bfloat16").bfloat16()
    rows = 4
    with cache.batches(0, rows, 575, dtype=torch.bfloat16, ahead=3) as batches:
        for turn, read_BTD in enumerate(batches):
            at = [(turn * rows + n) % LAYOUT.rows for n in range(rows)]
            assert torch.equal(read_BTD, truth_BTD[at])
    assert turn == 574


def test_few_files_are_open_however_many_shards_there_are(tmp_path, written):
    layout = Layout(rows=40, tokens=1, width=2, dtype="float32", shard_bytes=1)
    x_BTD = random_rows(layout)
    cache = TrunkCache(written(tmp_path / "trunk", layout, x_BTD), "key")
    assert layout.shards == 40
    assert torch.equal(cache.read(0, 120, torch.float32), x_BTD.repeat(3, 1, 1))
    assert len(cache._maps) == MAPS


def test_a_batch_may_be_kept(made):
    cache = TrunkCache(made, "key")
    truth_BTD = round_to(random_rows(LAYOUT), "bfloat16").bfloat16()
    with cache.batches(0, 2, 23, dtype=torch.bfloat16, ahead=1) as batches:
        kept = list(batches)
    assert torch.equal(torch.cat(kept), truth_BTD.repeat(2, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_to_a_batch_is_not_read_again(made, dtype):
    cache = TrunkCache(made, "key")
    before = [path.read_bytes() for path in sorted(made.iterdir())]
    truth_BTD = round_to(random_rows(LAYOUT), "bfloat16").to(dtype)
    for _ in range(3):
        x_BTD = cache.read(0, 2, dtype)
        assert torch.equal(x_BTD, truth_BTD[:2])
        x_BTD[0] += 1
    assert [path.read_bytes() for path in sorted(made.iterdir())] == before


def test_rows_of_one_shard_in_its_dtype_are_the_file_itself(made):
    cache = TrunkCache(made, "key")
    a_BTD, b_BTD = cache.read(2, 4, torch.bfloat16), cache.read(3, 2, torch.bfloat16)
    assert b_BTD.data_ptr() - a_BTD.data_ptr() == LAYOUT.row_bytes
    assert cache.read(5, 2, torch.bfloat16)._base is None  # of two shards


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mapped where")
def test_rows_lie_where_the_kernel_has_the_file(made):
    """Not in memory of this process: a cache may be larger than the machine's."""
    x_BTD = TrunkCache(made, "key").read(8, 2, torch.bfloat16)
    spans = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(f"{made.name}/rows-000001.bin"):
            spans.append([int(end, 16) for end in line.split()[0].split("-")])
    assert any(begin <= x_BTD.data_ptr() < end for begin, end in spans)


def test_batches_are_read_by_a_thread_that_ends(made, monkeypatch):
    readers = set()
    read = TrunkCache.read

    def noted(self, *arguments):
        readers.add(threading.current_thread().name)
        return read(self, *arguments)

    monkeypatch.setattr(TrunkCache, "read", noted)
    with TrunkCache(made, "key").batches(0, 2, 9, dtype=torch.bfloat16) as batches:
        next(iter(batches))
    assert readers == {"stackwise-prefetch"}
    assert "stackwise-prefetch" not in [thread.name for thread in threading.enumerate()]


def test_the_manifest_says_what_there_is(made):
    facts = loads((made / "cache.json").read_text("utf-8"))
    shards = facts.pop("shards")
    assert facts == {
        "format": 2,
        "key": "key",
        "rows": 23,
        "tokens": 5,
        "width": 6,
        "dtype": "bfloat16",
        "group": 2,
        "shard_bytes": 400,
        "complete": True,
    }
    assert [shard["bytes"] for shard in shards] == [360, 360, 360, 300]
    assert sorted(path.name for path in made.iterdir()) == [
        "cache.json",
        *(shard["file"] for shard in shards),
    ]


def test_a_cache_of_something_else_is_refused(made):
    with pytest.raises(CacheError) as error:
        TrunkCache(made, "other")
    assert str(error.value) == (
        "trunk/cache.json: is the cache of 'key', not of 'other'; give another folder, or remove "
        "the cache"
    )
    with pytest.raises(CacheError, match=r"^trunk/cache.json: is the cache of 'key', not of 'o"):
        CacheWriter(made, "other", LAYOUT)


def test_another_layout_is_refused(made):
    with pytest.raises(CacheError) as error:
        CacheWriter(made, "key", Layout(23, 5, 6, "float32", 2, 400))
    assert str(error.value) == (
        "trunk: holds Layout(rows=23, tokens=5, width=6, dtype='bfloat16', group=2, "
        "shard_bytes=400), and Layout(rows=23, tokens=5, width=6, dtype='float32', group=2, "
        "shard_bytes=400) was asked for; give another folder, or remove the cache"
    )


def test_no_cache_is_said(tmp_path):
    with pytest.raises(CacheError, match=r"^trunk: holds no cache; write it first$"):
        TrunkCache(tmp_path / "trunk", "key")


def test_an_unfinished_cache_is_refused(tmp_path):
    with CacheWriter(tmp_path / "trunk", "key", LAYOUT) as writer:
        writer.write(0, random_rows(LAYOUT)[:13])
    with pytest.raises(CacheError, match=r"^trunk: has 2 of 4 shards; go on writing it first$"):
        TrunkCache(tmp_path / "trunk", "key")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 22},
        {"rows": "23"},
        {"dtype": "fp9"},
        {"width": 0},
        {"complete": False},
        {"shards": None},
        {"shards": [{"file": "../rows-000000.bin", "bytes": 360, "xxh3": "0" * 32}]},
        {"shards": [{"file": "rows-000000.bin", "bytes": 360, "xxh3": "0" * 31}]},
    ],
)
def test_a_manifest_that_cannot_be_ours_is_damaged(made, change):
    path = made / "cache.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CacheError) as error:
        TrunkCache(made, "key")
    assert str(error.value) == (
        "trunk/cache.json: is damaged; remove the cache, and it is made again"
    )


def test_a_manifest_of_a_later_version_is_refused(made):
    path = made / "cache.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 3}))
    with pytest.raises(
        CacheError, match=r"^trunk/cache.json: has format 3, and this version reads 2; remove"
    ):
        TrunkCache(made, "key")


def test_rows_are_read_as_what_is_computed_with(made):
    cache = TrunkCache(made, "key")
    text = "dtype: rows are read as float32 or bfloat16, not as torch.float16"
    with pytest.raises(ValueError) as error:
        cache.read(0, 1, torch.float16)
    assert str(error.value) == text
    with pytest.raises(ValueError) as error, cache.batches(0, 1, 1, dtype=torch.half) as batches:
        next(iter(batches))
    assert str(error.value) == text


@pytest.mark.parametrize("name", ["rows", "tokens", "width", "group", "shard_bytes"])
def test_a_layout_of_nothing_is_refused(name):
    whole = {"rows": 1, "tokens": 1, "width": 1, "dtype": "fp8", "group": 1, "shard_bytes": 1}
    with pytest.raises(ValueError, match=f"^{name}: 0 must be 1 or more$"):
        Layout(**{**whole, name: 0})
