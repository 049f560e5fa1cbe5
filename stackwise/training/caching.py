"""What a stage's trunk puts out, computed once and read from disk.

Row r of a stage's cache is what the trunk gives for its r-th sample, under that sample's mask. Rows
repeat where the experiment lets order and masks repeat (`data.distinct_epochs`). With
`data.restart` every stage reads the same samples, so a stage's rows follow from those of the stage
before it by running the one stack that was frozen since: then the older cache is read, and goes
when the newer one is whole.

The files are in `trunk/cache.py`. A trunk's output is the same whether it is cached or computed:
both round it in the same places, and rows are made in micro-batches of the training's size.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from stackwise.data.batches import batch_at
from stackwise.objective import corrupt, is_causal
from stackwise.stage import roles
from stackwise.training.checkpoint import read_manifest
from stackwise.training.saved import RACK
from stackwise.training.step import autocast
from stackwise.training.work import Work
from stackwise.trunk.border import border_of, through
from stackwise.trunk.cache import CacheWriter, TrunkCache, remove

if TYPE_CHECKING:
    from stackwise.config import Experiment
    from stackwise.stage import Stage


def cached(work: Work, number: int) -> bool:
    """Whether a stage reads its input from a cache: where it has a trunk of stacks."""
    return work.placement.trunk == "cached" and bool(trunk_of(work.stages[number]))


def trunk_of(stage: Stage) -> tuple[str, ...]:
    """The frozen stacks before the first that trains."""
    return tuple(stack for stack, role in roles(stage).items() if role == "trunk")


def rows_of(work: Work, number: int) -> int:
    """Different samples of a stage, masks included."""
    read = work.steps_of(number) * work.exp.optim.batch
    period = work.exp.data.distinct_epochs
    return read if period is None else min(read, period * work.epoch_samples)


def open_cache(work: Work, number: int) -> TrunkCache:
    """The whole cache of a stage, made or completed now if it must be; older ones are removed."""
    home = cache_home(work)
    folder, key = home / f"{number}", key_of(work, number, trunk_of(work.stages[number]))
    began, done = time.monotonic(), fill(work, number, folder, key)
    cache = TrunkCache(folder, key)
    if done:
        work.writer.event(
            "cache_filled",
            stage=number,
            rows=cache.rows,
            bytes=cache.bytes,
            seconds=time.monotonic() - began,
        )
    for other in home.iterdir():
        if other != folder:
            remove(other)
    return cache


def cache_home(work: Work) -> Path:
    """The folder of a run's caches."""
    base = work.placement.cache_dir
    return work.run.path / "cache" if base is None else Path(base, work.run.id)


def key_of(work: Work, number: int, trunk: tuple[str, ...]) -> str:
    """A hash of all that decides the rows of a stage after `trunk`."""
    exp, stage = work.exp, work.stages[number]
    parts = read_manifest(work.run.path / RACK)["parts"]
    facts = {
        "science": exp.model_dump(
            mode="json", include={"rack", "attention", "objective", "masking", "data", "seed"}
        ),
        "compute": [exp.precision.compute, border_of(exp.precision)],
        "batch": [exp.optim.batch, work.placement.micro_batch],
        "data": work.dataset.fingerprint,
        "band": stage.band,
        "first": work.first_sample(number, 0),
        "weights": [parts[name]["sha256"] for name in ("embedding", *trunk)],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def fill(work: Work, number: int, folder: Path, key: str) -> bool:
    """Write the rows that a stage's cache lacks. False if it lacked none."""
    exp, trunk = work.exp, trunk_of(work.stages[number])
    shape = (exp.data.seq_len, exp.rack.d_model)
    with CacheWriter(folder, key, rows_of(work, number), shape, border_of(exp.precision)) as writer:
        if writer.complete:
            return False
        older = older_cache(work, number, trunk)
        for first, x_BTD in made_rows(work, number, writer.rows_done, older, trunk):
            writer.write(first, x_BTD)
    return True


def older_cache(work: Work, number: int, trunk: tuple[str, ...]) -> TrunkCache | None:
    """The cache of the stage before, if its rows are those of this one but for the last stack."""
    folder, key = cache_home(work) / f"{number - 1}", key_of(work, number, trunk[:-1])
    if not TrunkCache.is_of(folder, key):
        return None
    older = TrunkCache(folder, key)
    return older if older.rows >= rows_of(work, number) else None


@torch.no_grad()
def made_rows(
    work: Work, number: int, start: int, older: TrunkCache | None, trunk: tuple[str, ...]
) -> Iterator[tuple[int, Tensor]]:
    """Rows from `start` on, a micro-batch at a time: from an older cache, or from the tokens."""
    exp, causal = work.exp, is_causal(work.exp.objective)
    size, border = exp.optim.batch, border_of(exp.precision)
    micro = work.placement.micro_batch or size
    rule = work.corruption(number)
    compute = getattr(torch, exp.precision.compute)
    rest = [[*work.rack.blocks([stack])] for stack in (trunk if older is None else trunk[-1:])]
    for first in range(start, rows_of(work, number), size):
        if older is None:
            counter = work.first_sample(number, first // size)
            batch = batch_at(work.dataset, counter, size, exp.seed)
            read = work.samples_before(number) + first
            noisy = corrupt(rule, batch, progress=read / work.total_samples)
        for begin in range(0, size, micro):
            count = min(micro, size - begin)
            with autocast(work.device, compute):
                if older is None:
                    ids_BT = noisy.input_BT[begin : begin + count].to(work.device)
                    x_BTD = work.rack.embedding(ids_BT)
                else:
                    x_BTD = older.read(first + begin, count).to(work.device)
                yield first + begin, through(
                    x_BTD, rest, causal=causal, border=border
                )
