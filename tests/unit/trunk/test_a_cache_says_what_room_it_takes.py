"""The bytes of a cache: known before it is written, and given back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.room import bytes_held, bytes_needed, remove
from stackwise.trunk.rounding import STORED
from stackwise.trunk.shards import CacheError, Layout
from stackwise.trunk.writer import CacheWriter

SMALL = Layout(rows=4, tokens=2, width=3, dtype="float32")


@settings(max_examples=25)  # every shard is flushed to the disk
@given(
    rows=st.integers(1, 20),
    tokens=st.integers(1, 4),
    width=st.integers(1, 5),
    dtype=st.sampled_from(list(STORED)),
    shard_bytes=st.integers(1, 300),
    key=st.text("k\u00e9\U0001f600", min_size=1, max_size=256),
)
def test_it_takes_what_was_said(tmp_path_factory, rows, tokens, width, dtype, shard_bytes, key):
    layout = Layout(rows, tokens, width, dtype, shard_bytes=shard_bytes)
    folder = tmp_path_factory.mktemp("cache")
    with CacheWriter(folder, key, layout) as writer:
        writer.write(0, torch.zeros(rows, tokens, width))
    shards = sum(path.stat().st_size for path in folder.glob("rows-*"))
    manifest = (folder / "cache.json").stat().st_size
    each = {"float32": 4 * width, "bfloat16": 2 * width, "fp8": width + 4}[dtype]
    assert shards == rows * tokens * each
    assert shards + manifest == bytes_held(folder)
    assert 2 * manifest <= bytes_needed(layout) - shards


def test_at_70b_width_a_cache_is_its_rows():
    """100 M tokens of 16 KiB each are 1.64 TB; the manifest is nothing beside them."""
    layout = Layout(rows=48829, tokens=2048, width=8192, dtype="bfloat16", group=8)
    rows = layout.rows * 2048 * 16384
    assert rows == pytest.approx(1.64e12, rel=0.01)
    assert 0 < bytes_needed(layout) - rows < 1e-5 * rows


def test_removing_takes_the_cache_and_its_folder(tmp_path, written):
    folder = written(tmp_path / "trunk", SMALL, torch.zeros(4, 2, 3))
    (folder / ".rows-000007.bin.123-0.part").write_bytes(b"half")
    (folder / ".cache.json.123-4.part").write_bytes(b"half")
    remove(folder)
    assert not folder.exists()
    remove(folder)


def test_removing_leaves_what_is_not_ours(tmp_path, written):
    folder = written(tmp_path / "trunk", SMALL, torch.zeros(4, 2, 3))
    others = {"notes.txt", "rows-1.bin", "rows-000000.bin.bak", ".part", "my-rows-000000.bin"}
    for name in others:
        (folder / name).write_text("mine")
    (folder / "below").mkdir()
    (folder / "below" / "rows-000000.bin").write_text("mine")
    remove(folder)
    assert {path.name for path in folder.iterdir()} == {*others, "below"}
    assert (folder / "below" / "rows-000000.bin").read_text() == "mine"


def test_a_cache_that_was_removed_by_half_is_none(tmp_path, written, monkeypatch):
    folder = written(tmp_path / "trunk", SMALL, torch.zeros(4, 2, 3))
    monkeypatch.setattr("stackwise.trunk.room._ours", lambda folder: [])  # killed there
    remove(folder)
    assert (folder / "rows-000000.bin").exists()
    with pytest.raises(CacheError, match="holds no cache"):
        TrunkCache(folder, "key")


@pytest.mark.parametrize("text", ["{}", "[1]", "not json", '{"files": {}}'])
def test_a_file_of_that_name_is_no_cache(tmp_path, text):
    folder = tmp_path / "site" / "public"
    folder.mkdir(parents=True)
    (folder / "cache.json").write_text(text)
    remove(folder)
    assert (folder / "cache.json").read_text() == text
    (tmp_path / "link").symlink_to(folder)
    remove(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (folder / "cache.json").exists()


def test_a_cache_whose_manifest_is_damaged_is_removed(tmp_path, written):
    folder = written(tmp_path / "trunk", SMALL, torch.zeros(4, 2, 3))
    (folder / "cache.json").write_text("{")
    remove(folder)
    assert not folder.exists()
