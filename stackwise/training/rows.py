"""Of which samples a cache holds what a stage's trunk puts out: those it trains on, or looks at.

How they are made and kept is in `caching.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stackwise.corruption import Corrupted
from stackwise.course import as_begun
from stackwise.data.heldout import chosen, rows_at_once
from stackwise.memory.disk import rows_of
from stackwise.training.placing import masks_move
from stackwise.training.work import Work

TRAINED, HELDOUT = "trained", "heldout"


@dataclass(frozen=True)
class Rows:
    """The rows of a cache.

    Attributes:
        of: `trained`, or `heldout`.
        count: How many there are.
        size: How many are read at once.
        micro: How many run through the trunk at once.
        noisy: Those read at once, by the number of the first one.
        facts: What decides them beside experiment, data and weights.
        length: Tokens of each.
    """

    of: str
    count: int
    size: int
    micro: int
    noisy: Callable[[int], Corrupted]
    facts: dict[str, Any]
    length: int

    def folder_name(self, number: int) -> str:
        """Where the cache of a stage lies."""
        return str(number) if self.of == TRAINED else f"{number}.{self.of}"


def rows_trained(work: Work, number: int) -> Rows:
    """Those that a stage trains on."""
    size = work.exp.optim.batch
    moves = masks_move(work.exp)
    return Rows(
        of=TRAINED,
        count=rows_of(work.exp, as_begun(work.exp, work.stages[number]), work.epoch_samples),
        size=size,
        micro=min(size, work.placement.micro_batch or size),
        noisy=lambda first: work.noisy_batch(number, first // size),
        facts={
            "batch": [size, work.placement.micro_batch],
            "first": work.first_sample(number, 0),
            "progress": [work.samples_before(number), work.total_samples] if moves else None,
            **read_otherwise(work, number),
            **in_blocks_of(work, number),
        },
        length=work.length_of(number),
    )


def rows_looked_at(work: Work, number: int) -> Rows:
    """Held-out windows under a stage's noise."""
    exp, size = work.exp, rows_at_once(work.exp)
    return Rows(
        of=HELDOUT,
        count=len(chosen(work.dataset, exp.eval.windows)),
        size=size,
        micro=size,
        noisy=lambda first: work.heldout(number).rows(first, first + size),
        facts={"heldout": [exp.eval.windows, size], **in_blocks_of(work, number)},
        length=exp.data.seq_len,
    )


def in_blocks_of(work: Work, number: int) -> dict[str, int]:
    """The size of a stage's blocks, where stages have sizes of their own."""
    block = work.stages[number].block
    return {} if block is None else {"block": block}


def read_otherwise(work: Work, number: int) -> dict[str, Any]:
    """What decides a stage's samples, and how far training is, where data change by stage."""
    if not work.dataset.parts and all(stage.seq_len is None for stage in work.stages):
        return {}
    return {
        "length": work.length_of(number),
        "weights": work.weights_in(number),
        "read": work.read_before(0 if work.exp.data.restart else number),
        "tokens": work.tokens_before(number),
    }


ROWS: dict[str, Callable[[Work, int], Rows]] = {TRAINED: rows_trained, HELDOUT: rows_looked_at}
