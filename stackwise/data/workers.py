"""Batches made ahead of the step by some threads, handed over in order.

A batch is a pure function of its number, so that several threads may make them: each every so many,
and they are taken in turn. How many threads there are changes how long a step waits, and no number.
One thread with its queue is a `Prefetcher` (`batches.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from stackwise.data.batches import prefetch

Item = TypeVar("Item")


@contextmanager
def made_in_order(
    make: Callable[[int], Item], numbers: Sequence[int], workers: int
) -> Iterator[Iterator[Item]]:
    """Make an item for each number; the threads end with the block.

    Args:
        make: A pure function, called in the workers' threads.
        numbers: Of the items, in the order in which they are taken.
        workers: Threads, 0 or more; 0: each item is made here, as it is taken.

    Yields:
        The items in order. What `make` raises is raised at its item.
    """
    if not workers:
        yield map(make, numbers)
        return
    with ExitStack() as running:
        queues = [
            iter(running.enter_context(prefetch(map(make, numbers[i::workers]), ahead_of(workers))))
            for i in range(workers)
        ]
        yield (next(queues[i % workers]) for i in range(len(numbers)))


def ahead_of(workers: int) -> int:
    """Items that each worker has ready before they are asked for."""
    return 2 if workers == 1 else 1


def most_held(workers: int) -> int:
    """Items that are there at once: the one in hand, those ready, and those being made.

    Made in the step's own thread, the next one is made while the last is in hand.
    """
    return 1 + max(1, workers * (ahead_of(workers) + 1))
