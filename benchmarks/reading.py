"""How fast a stage reads its input, as ratios measured in one run.

    python benchmarks/reading.py         prints two tables and exits 1 if a bound is missed

- `TrunkCache.batches` and `BlockReader` against a plain sequential read of the same files by one
  thread, in pieces of the same size, from the page cache and from the disk. Taken in turn, and the
  median over the turns of the plain read's time over theirs. Bound: at least 0.8, also where each
  shard is hashed on the way, as it is once in a stage.
- Waiting: the share of time in which a consumer that computes on each batch or block for some
  milliseconds waits for the next one, from the page cache. Bound: 1 %.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from stackwise.report import table
from stackwise.training.tensorfile import save_file
from stackwise.trunk.blocks import StoredBlock
from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.pages import pages
from stackwise.trunk.shards import Layout, shard_path
from stackwise.trunk.stream import BlockReader
from stackwise.trunk.writer import CacheWriter

MIB = 1 << 20
ROUNDS = 9
PIECE = 64 * MIB  # of one batch, of one block, of one plain read
PIECES = 8
ROWS = 16  # of a batch
LAYOUT = Layout(
    rows=ROWS * PIECES,
    tokens=256,
    width=8192,
    dtype="bfloat16",
    group=ROWS,
    shard_bytes=2 * PIECE,
)
SLOTS = 3
STEPS = 60
COMPUTE_SECONDS = 0.05

Arm = Callable[[], object]


def write_cache(folder: Path) -> TrunkCache:
    """A cache of 512 MiB in four shards."""
    x_BTD = torch.randn(ROWS, LAYOUT.tokens, LAYOUT.width).bfloat16()
    with CacheWriter(folder, "reading", LAYOUT) as writer:
        for first in range(0, LAYOUT.rows, ROWS):
            writer.write(first, x_BTD)
    return TrunkCache(folder, "reading")


def write_blocks(path: Path) -> list[StoredBlock]:
    """Eight blocks of 64 MiB in one file."""
    names = tuple(f"linear{number}.packed" for number in range(4))
    packed = torch.randint(0, 256, (PIECE // len(names),), dtype=torch.uint8)
    save_file({f"blocks.{n}.{name}": packed for n in range(PIECES) for name in names}, path)
    return [StoredBlock(f"s0.{n}", path, f"blocks.{n}.", names) for n in range(PIECES)]


def plain(files: list[Path]) -> Arm:
    """One thread reads files from end to end into one buffer."""
    buffer = pages(PIECE).numpy().data

    def read() -> None:
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    return read


def from_cache(cache: TrunkCache) -> Arm:
    """All batches of a cache, through its thread, and a sum that reads every byte of them."""

    def read() -> None:
        with cache.batches(0, ROWS, PIECES, dtype=torch.bfloat16) as batches:
            for x_BTD in batches:
                x_BTD.view(torch.int64).sum()

    return read


def from_fresh(folder: Path) -> Arm:
    """The first pass over a cache, which compares its hashes."""
    return lambda: from_cache(TrunkCache(folder, "reading"))()


def from_blocks(reader: BlockReader, blocks: list[StoredBlock]) -> Arm:
    """A forward pass: as many blocks are fetched in it, the first ones for the next pass."""

    def read() -> None:
        until = reader.did.blocks + PIECES
        for block in blocks:
            reader.tensors(block.key)
        while reader.did.blocks < until:
            time.sleep(0.0002)

    return read


def forget(cache: TrunkCache, files: list[Path]) -> None:
    """Let the kernel drop what it holds of files; mapped pages it would keep."""
    cache._maps.clear()
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def in_turn(ours: Arm, theirs: Arm, before: Arm) -> tuple[float, float, float]:
    """Median seconds of each, and the median of theirs over ours, turn by turn."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    for number in range(ROUNDS + 2):  # the first two warm up
        for arm in (0, 1) if number % 2 else (1, 0):
            before()
            began = time.perf_counter()
            (ours, theirs)[arm]()
            if number >= 2:
                seconds[arm].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    return *(statistics.median(times) for times in seconds.values()), statistics.median(ratios)


def against_plain(cache: TrunkCache, reader: BlockReader, blocks: list[StoredBlock]) -> bool:
    """Both readers beside the plain read, warm and cold."""
    shards = [shard_path(cache.folder, shard) for shard in range(LAYOUT.shards)]
    from_cache(cache)()  # hashes it
    arms = {
        "trunk outputs, hashed on the way": (from_fresh(cache.folder), shards),
        "trunk outputs": (from_cache(cache), shards),
        "frozen blocks": (from_blocks(reader, blocks), [blocks[0].path]),
    }
    rows, good = [], True
    for name, (ours, files) in arms.items():
        for place in ("memory", "disk"):
            cold = place == "disk"
            before = (lambda files=files: forget(cache, files)) if cold else (lambda: None)
            *seconds, ratio = in_turn(ours, plain(files), before)
            good &= ratio >= 0.8
            rates = [f"{PIECES * PIECE / each / 1e9:.2f}" for each in seconds]
            rows.append([f"{name}, from {place}", *rates, f"{ratio:.3f}"])
    print(table(["GB/s", "StackWise", "plain read", "ratio"], rows), "\n")
    return good


def compute(a: torch.Tensor) -> None:
    """Keep one core busy for some milliseconds."""
    until = time.perf_counter() + COMPUTE_SECONDS
    while time.perf_counter() < until:
        a @ a


def waiting(cache: TrunkCache, reader: BlockReader, blocks: list[StoredBlock]) -> bool:
    """How long a consumer waits that computes on what it gets."""
    a = torch.randn(512, 512)
    with cache.batches(0, ROWS, STEPS, dtype=torch.bfloat16) as batches:
        waits, began = [], time.perf_counter()
        stream = iter(batches)
        for _ in range(STEPS):
            asked = time.perf_counter()
            next(stream)
            waits.append(time.perf_counter() - asked)
            compute(a)
        of_batches = sum(waits[1:]) / (time.perf_counter() - began)

    keys = [block.key for block in [*blocks, *reversed(blocks)]]
    for key in keys:
        reader.tensors(key)  # it learns where a step turns
    before, began = reader.did, time.perf_counter()
    for step in range(STEPS):
        reader.tensors(keys[step % len(keys)])
        compute(a)
    of_blocks = (reader.did.wait_seconds - before.wait_seconds) / (time.perf_counter() - began)
    rows = [["trunk outputs", f"{of_batches:.4%}"], ["frozen blocks", f"{of_blocks:.4%}"]]
    print(table(["waiting", "share of time"], rows))
    return of_batches <= 0.01 and of_blocks <= 0.01


def main() -> int:
    """Print both tables."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the other core reads
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = write_cache(folder / "trunk")
        blocks = write_blocks(folder / "s0.safetensors")
        with BlockReader(blocks, slots=SLOTS) as reader:
            for block in blocks:
                reader.tensors(block.key)
            while reader.did.blocks < PIECES + SLOTS - 1:
                time.sleep(0.001)  # the last one stays, the others are there for the next pass
            good = [against_plain(cache, reader, blocks), waiting(cache, reader, blocks)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
