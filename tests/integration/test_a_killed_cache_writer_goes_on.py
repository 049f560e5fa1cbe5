"""A process is killed while it writes trunk outputs: whole shards stay, and the rest follows."""

from __future__ import annotations

import signal
import subprocess
import sys

import torch

from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.shards import Layout
from stackwise.trunk.writer import CacheWriter

LAYOUT = Layout(rows=10, tokens=3, width=4, dtype="float32", group=2, shard_bytes=4 * 48)
ROWS_BTD = torch.arange(10 * 3 * 4, dtype=torch.float32).reshape(10, 3, 4)


def test_whole_shards_outlive_a_kill(tmp_path):
    """The process is killed while it writes the second shard, of which it has written a half."""
    code = f"""
import os, torch
from stackwise.trunk import shardfile
from stackwise.trunk.shards import Layout
from stackwise.trunk.writer import CacheWriter
from pathlib import Path
rows_BTD = torch.arange(120, dtype=torch.float32).reshape(10, 3, 4)
writer = CacheWriter(Path({str(tmp_path)!r}), "key", {LAYOUT!r})
taken = shardfile.islice
def short(rows, count):
    for number, row in enumerate(taken(rows, count)):
        if writer.rows_done and number == 2:
            os.kill(os.getpid(), 9)
        yield row
shardfile.islice = short
for first in range(0, 10, 2):
    writer.write(first, rows_BTD[first : first + 2])
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = {path.name for path in tmp_path.glob(".*.part")}
    assert left
    with CacheWriter(tmp_path, "key", LAYOUT) as writer:
        assert writer.rows_done == 4
        assert not left & {path.name for path in tmp_path.glob(".*.part")}
        for first in range(writer.rows_done, 10, 2):
            writer.write(first, ROWS_BTD[first : first + 2])
    assert writer.complete
    cache = TrunkCache(tmp_path, "key")
    assert torch.equal(cache.read(0, 10, torch.float32), ROWS_BTD)
