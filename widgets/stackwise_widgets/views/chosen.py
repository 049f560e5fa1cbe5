"""Which stages of many are shown: all, or the first, one round of what repeats, and the last."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from stackwise import Stage

MOST = 128  # stages of which each gets a row: those of the largest preset, 126, and a few


class Gap(NamedTuple):
    """Stages in a row that are not shown.

    Attributes:
        first: The first of them.
        last: The last.
        words: What they are.
    """

    first: int
    last: int
    words: str


def chosen(stages: Sequence[Stage], most: int = MOST) -> list[int | Gap]:
    """The stages to show, by number, and what is left out between them.

    Where a round of stages repeats to the end, as in block coordinate descent, what comes before
    it, the first round and the last are shown. Else the first and the last ones.
    """
    count = len(stages)
    if count <= most:
        return list(range(count))
    start, period = repetition([kind_of(stage) for stage in stages])
    if start + 2 * period <= most and start + 2 * period < count:
        head, tail = start + period, period
        rounds = f"stages {start} to {head - 1}" if period > 1 else f"stage {start}"
        words = f"repeat {rounds} over and over"
    else:
        head, tail, words = most - most // 2, most // 2, "are left out"
    gap = Gap(head, count - tail - 1, "")
    named = f"{gap.last - gap.first + 1:,} stages, {gap.first} to {gap.last}, {words}"
    return [*range(head), gap._replace(words=named), *range(count - tail, count)]


def kind_of(stage: Stage) -> Hashable:
    """What of a stage its picture shows, whenever it comes."""
    trains = (stage.active, stage.adapters, stage.embedding, stage.head)
    return (stage.path, stage.pick, stage.new, stage.band, trains)


def repetition(kinds: Sequence[Hashable]) -> tuple[int, int]:
    """Where a round begins that repeats to the end, and its length, for the fewest rows in all.

    A round that comes less than twice is none: then it begins at the end.
    """
    number = {kind: n for n, kind in enumerate(dict.fromkeys(kinds))}
    match = self_match([number[kind] for kind in reversed(kinds)])
    rounds = [(len(kinds) - found + p, p) for p, found in enumerate(match) if found >= p > 0]
    rows, period = min(rounds, default=(2 * len(kinds), len(kinds)))
    return rows - 2 * period, period


def self_match(numbers: Sequence[int]) -> list[int]:
    """How much of the list is the same as its beginning, from each place on (the Z function)."""
    match, left, right = [0] * len(numbers), 0, 0
    for i in range(1, len(numbers)):
        if i < right:
            match[i] = min(right - i, match[i - left])
        while i + match[i] < len(numbers) and numbers[match[i]] == numbers[i + match[i]]:
            match[i] += 1
        if i + match[i] > right:
            left, right = i, i + match[i]
    return match
