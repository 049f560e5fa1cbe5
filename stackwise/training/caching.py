"""What a stage's trunk puts out, computed once and read from disk.

Row r of a stage's cache is what the trunk gives for its r-th sample, under that sample's mask. Rows
repeat where the experiment lets order and masks repeat (`data.distinct_epochs`). With
`data.restart` every stage reads the same samples, so a stage's rows follow from those of the stage
before it by running the one stack that was frozen since: then the older cache is read, and goes
when the newer one is whole. What held-out windows give is a cache of its own beside it, where it
spares a look the trunk.

Which rows there are is in `rows.py`, the files in `trunk/cache.py`. A trunk's output is the same
whether it is cached or computed: both round it in the same places, and rows are made together in
the numbers in which they are computed otherwise.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stackwise.by_stage import in_blocks
from stackwise.config import Placement
from stackwise.memory.disk import layout_of, looks_at_ends
from stackwise.model.direction import start_of
from stackwise.objective import direction_of
from stackwise.pulse import beat
from stackwise.runs import Run
from stackwise.stage import trunk_of
from stackwise.training.manifest import CheckpointError, read_manifest
from stackwise.training.obeying import take_orders
from stackwise.training.ownership import RACK
from stackwise.training.rows import ROWS, Rows, rows_looked_at, rows_trained
from stackwise.training.saved import save_parts
from stackwise.training.step import autocast
from stackwise.training.work import Stopped, Work
from stackwise.trunk.border import border_of, through
from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.room import bytes_held, remove
from stackwise.trunk.shards import CacheError, DamagedShard, Layout
from stackwise.trunk.writer import CacheWriter

MENDS = 3  # of one shard, while a stage reads it


def is_cached(work: Work, number: int) -> bool:
    """Whether a stage reads its input from a cache: where it has a trunk of stacks."""
    return work.placement.trunk == "cached" and bool(trunk_of(work.stages[number]))


def open_caches(work: Work, number: int) -> TrunkCache:
    """The whole cache of a stage, made or completed now if it must be; older ones are removed.

    So is that of the held-out windows, if looking at them reads one.
    """
    if "embedding" not in work.on_disk:  # its hash is part of the key
        save_parts(work, number, {"embedding"}, {})
    wanted = [rows_trained(work, number)]
    if looks_are_cached(work, number):
        wanted.append(rows_looked_at(work, number))
    caches = {rows.folder_name(number): made(work, number, rows) for rows in wanted}
    for other in caches_of(work.run, work.placement).iterdir():
        if other.name not in caches:
            remove(other)
    return caches[str(number)]


def made(work: Work, number: int, rows: Rows) -> TrunkCache:
    """The whole cache of some rows, made or completed now if it must be."""
    folder = home_of(work, number, rows)
    key = key_of(work, number, rows, trunk_of(work.stages[number]))
    began, source = time.monotonic(), None
    layout = layout_of(in_blocks(work.exp, work.stages[number]), rows.count, rows.size, rows.length)
    writer, why = writer_of(layout, folder, key)
    with writer:
        incomplete = not writer.complete
        if incomplete:
            source = fill(work, number, rows, writer)
    if incomplete:
        facts = {"rows": rows.count, "bytes": bytes_held(folder), "of": rows.of}
        again = {} if why is None else {"why": why}
        seconds = time.monotonic() - began
        work.writer.event(
            "cache_filled", stage=number, from_stage=source, seconds=seconds, **facts, **again
        )
    return TrunkCache(folder, key)


def open_looks(work: Work, number: int) -> TrunkCache:
    """The cache of a stage's held-out windows."""
    rows = rows_looked_at(work, number)
    key = key_of(work, number, rows, trunk_of(work.stages[number]))
    return TrunkCache(home_of(work, number, rows), key)


def looks_are_cached(work: Work, number: int) -> bool:
    """Whether looks at held-out windows in a stage read a cache of what its trunk gives for them.

    They do unless they go through every depth of the trunk anyway.
    """
    return is_cached(work, number) and looks_at_ends(work.exp)


def home_of(work: Work, number: int, rows: Rows) -> Path:
    """The folder of a stage's cache of some rows."""
    return caches_of(work.run, work.placement) / rows.folder_name(number)


def caches_of(run: Run, placement: Placement) -> Path:
    """The folder of a run's caches."""
    base = placement.cache_dir
    return run.path / "cache" if base is None else run.path / base / run.id


def drop_caches(home: Path) -> None:
    """Remove what is left of a run's caches; a folder that holds anything else stays, with that."""
    if home.is_symlink() or not home.is_dir():
        return
    for folder in home.iterdir():
        remove(folder)
    if not any(home.iterdir()):
        home.rmdir()


def writer_of(layout: Layout, folder: Path, key: str) -> tuple[CacheWriter, str | None]:
    """The writer of a stage's rows, at the first one that is not there, and why it was lost.

    What else lies in the folder is of weights or samples that this stage does not have.
    """
    try:
        writer = CacheWriter(folder, key, layout)
        return writer, writer.lost
    except CacheError as error:
        remove(folder)
        return CacheWriter(folder, key, layout), str(error).partition(";")[0]


def key_of(work: Work, number: int, rows: Rows, trunk: Sequence[str]) -> str:
    """A hash of all that decides the rows of a stage after `trunk`."""
    exp = work.exp
    parts = read_manifest(work.run.path / RACK)["parts"]
    sections = {"rack", "attention", "objective", "masking", "data", "seed"}
    facts = {
        "science": {k: value for k, value in exp.identity().items() if k in sections},
        "numbers": [exp.precision.compute, border_of(exp.precision)],
        "data": work.dataset.fingerprint,
        "band": work.stages[number].band,
        "weights": [parts[name]["sha256"] for name in ("embedding", *trunk)],
        **rows.facts,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fill(work: Work, number: int, rows: Rows, writer: CacheWriter) -> int | None:
    """Write the rows that a stage's cache lacks.

    Returns:
        The stage whose cache they were made from; None if from the tokens.

    Raises:
        Stopped: If it is asked meanwhile; whole shards stay, and a resumed run goes on after them.
    """
    older = older_cache(work, number, rows)
    for first in range(writer.rows_done, rows.count, rows.size):
        for row, x_BTD in outputs(work, number, rows, first, older):
            writer.write(row, x_BTD)
        take_orders(work)
        if work.stop_requested:
            raise Stopped
    return None if older is None else number - 1


def mend(work: Work, number: int, rows: Rows, cache: TrunkCache, damage: DamagedShard) -> None:
    """Make a damaged shard of a cache anew, from the tokens, and say so.

    On another machine its rows may come out otherwise in the last bits, which the event says.

    Raises:
        CheckpointError: If it was, again and again: then the disk does not keep it.
    """
    if cache.rebuilt[damage.shard] >= MENDS:
        raise CheckpointError(
            f"{damage}, and it has been, {MENDS} times: the disk does not keep what is written; "
            "go on with another placement.cache_dir, or with placement.trunk=streamed"
        ) from damage
    firsts = range(damage.rows.start, damage.rows.stop, rows.size)
    batches = (outputs(work, number, rows, first, None) for first in firsts)
    same = cache.rebuild(damage.shard, (x_BTD for batch in batches for _, x_BTD in batch))
    work.writer.event("cache_mended", stage=number, why=str(damage), same_rows=same)


def read_whole(
    work: Work, number: int, rows: Rows, cache: TrunkCache, first: int, count: int
) -> Tensor:
    """Rows of a cache, of which damaged shards are made anew."""
    while True:
        try:
            return cache.read(first, count, torch.float32)
        except DamagedShard as damage:
            mend(work, number, rows, cache, damage)


def older_cache(work: Work, number: int, rows: Rows) -> TrunkCache | None:
    """The cache of the stage before, if its rows are those of this one but for the last stack."""
    key = key_of(work, number, rows, trunk_of(work.stages[number])[:-1])
    try:
        older = TrunkCache(home_of(work, number - 1, rows), key)
    except CacheError:
        return None
    return older if older.layout.rows >= rows.count else None


@torch.no_grad()
def outputs(
    work: Work, number: int, rows: Rows, first: int, older: TrunkCache | None
) -> Iterator[tuple[int, Tensor]]:
    """The trunk's outputs for the batch that begins at row `first`, a micro-batch at a time."""
    exp = in_blocks(work.exp, work.stages[number])
    causal = direction_of(exp.objective, rows.length)
    border, trunk = border_of(exp.precision), trunk_of(work.stages[number])
    rest = [[*work.rack.blocks([stack])] for stack in (trunk if older is None else trunk[-1:])]
    reads = older is None or exp.rack.time != "none"  # what the trunk is given beside an older one
    noisy = rows.noisy(first) if reads else None
    earlier, stop = ROWS[rows.of](work, number - 1), min(first + rows.size, rows.count)
    for row in range(first, stop, rows.micro):
        count = min(rows.micro, stop - row)
        part = time_B = None
        if noisy is not None:
            part = noisy.rows(row - first, row - first + count).to(work.device)
            time_B = work.rack.time_of(part.input_BT, part.level_B)
        with autocast(work.device, getattr(torch, exp.precision.compute)):
            if older is not None:
                x_BTD = read_whole(work, number - 1, earlier, older, row, count)
                x_BTD = x_BTD.to(work.device)
            else:
                assert part is not None
                x_BTD = work.rack.embedding(part.input_BT, start_of(causal))
            beat()
            yield row, through(x_BTD, rest, causal=causal, border=border, time_B=time_B)
