"""Which samples a batch holds, and reading ahead.

Samples are counted over the whole run: number g is a pure function of g, the seed, the number of
samples and the batch size. So the order does not depend on stages, growth, micro-batches or
workers, and a resumed run goes on exactly where it stopped. An epoch is a seeded permutation, of
which the first floor(N / batch) * batch samples are used, so that no batch straddles two epochs.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from stackwise.data.errors import DataError
from stackwise.data.uniform import Use, bits

Item = TypeVar("Item")
Ints = NDArray[np.int64]
_ordering = threading.Lock()


class Samples(Protocol):
    """What `batch_at` needs of a dataset."""

    @property
    def n_samples(self) -> int:
        """How many there are."""
        ...

    def samples(self, ids: Ints) -> Ints:
        """Samples by number, (B, T)."""
        ...


@dataclass(frozen=True)
class Batch:
    """Samples, and what they are known by. Random draws for a sample depend on nothing else.

    Attributes:
        ids_BT: Token ids, int64.
        sample_B: Numbers of the samples in the dataset.
        draw_B: How often each was drawn before: its epoch.
        place_B: Its place in the seeded order of that epoch.
        turn_B: Which order it is whose places are counted, where that is not the sample's epoch.
    """

    ids_BT: torch.Tensor | Ints
    sample_B: Ints
    draw_B: Ints
    place_B: Ints
    turn_B: Ints | None = None

    def __len__(self) -> int:
        return len(self.sample_B)


def batch_at(dataset: Samples, first_sample: int, batch: int, seed: int) -> Batch:
    """The samples numbered `first_sample` to `first_sample + batch - 1` of a run.

    Args:
        dataset: Where samples come from.
        first_sample: Global counter, 0 or more.
        batch: Samples per optimizer step.
        seed: Of the order.

    Raises:
        DataError: If the dataset has not one whole batch.
    """
    epoch_size = samples_per_epoch(dataset, batch)
    draw_B, place_B = np.divmod(np.arange(first_sample, first_sample + batch), epoch_size)
    sample_B = np.empty(batch, dtype=np.int64)
    for epoch in range(int(draw_B[0]), int(draw_B[-1]) + 1):
        here = draw_B == epoch
        sample_B[here] = epoch_order(dataset.n_samples, seed, epoch)[place_B[here]]
    return Batch(torch.from_numpy(dataset.samples(sample_B)), sample_B, draw_B, place_B)


def part_of(batch: Batch, part: int, parts: int, length: int) -> Batch:
    """One of the parts that a batch's samples are cut into: a batch of shorter samples.

    All its texts are apart from each other, and in as many steps as there are parts the texts of
    one batch are read: their order does not depend on the length. What is left over at a sample's
    end is not read.

    Args:
        batch: Of whole samples.
        part: 0 to parts - 1.
        parts: Parts of a sample; 1 leaves the batch as it is.
        length: Tokens of each part.
    """
    if parts == 1 and length == batch.ids_BT.shape[1]:
        return batch
    size, at = len(batch), part * length
    return replace(
        batch,
        ids_BT=batch.ids_BT[:, at : at + length],
        sample_B=batch.sample_B * parts + part,
        place_B=(batch.place_B // size * parts + part) * size + batch.place_B % size,
    )


def samples_per_epoch(dataset: Samples, batch: int) -> int:
    """Samples of an epoch: as many whole batches as there are.

    Raises:
        DataError: If there is not one whole batch.
    """
    whole = dataset.n_samples // batch * batch
    if not whole:
        raise DataError(
            f"optim.batch={batch} > {dataset.n_samples} training samples; lower optim.batch or "
            "data.seq_len, or take a longer text"
        )
    return whole


def epoch_order(samples: int, seed: int, epoch: int) -> Ints:
    """A permutation of 0 to samples - 1, a pure function of the arguments; do not write to it."""
    with _ordering:  # of several workers that come to a new epoch, one makes its order
        return _epoch_order(samples, seed, epoch)


@lru_cache(maxsize=16)
def _epoch_order(samples: int, seed: int, epoch: int) -> Ints:
    order = np.argsort(bits(seed, Use.ORDER, epoch, samples), kind="stable")
    order.flags.writeable = False
    return order


class Prefetcher(Generic[Item]):
    """Runs an iterator in a thread of its own, a few items ahead. Use it in a `with` block.

    What the iterator raises is raised here, at the item where it happened. Leaving the block ends
    the thread and closes the iterator, whether or not it was at its end.
    """

    def __init__(self, items: Iterator[Item], ahead: int, aside: bool) -> None:
        self._items = items
        self._aside = aside
        self._queue: queue.Queue[tuple[Item] | BaseException | None] = queue.Queue(ahead)
        self._ended = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stackwise-prefetch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopping.set()
        while self._thread.is_alive():
            self._drain()  # makes room, in case the thread waits for it
            self._thread.join(0.01)

    def __iter__(self) -> Iterator[Item]:
        while not self._ended:
            entry = self._queue.get()
            if isinstance(entry, tuple):
                yield entry[0]
                continue
            self._ended = True
            if entry is not None:
                raise entry

    def _run(self) -> None:
        """Fill the queue until the end, an error, or the request to stop."""
        if self._aside:
            step_aside()
        end: BaseException | None = None
        try:
            for item in self._items:
                self._queue.put((item,))
                if self._stopping.is_set():
                    break
        except BaseException as error:  # whatever it is belongs to whoever reads
            end = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()
        self._queue.put(end)

    def _drain(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            return


def step_aside() -> None:
    """Lower this thread's priority, where threads have one of their own.

    Woken at the same priority it takes the core of whoever has just asked for an item: at 20 ms a
    step they then wait 0.6 ms for each, and so 0.05 ms (`benchmarks/step.py` bounds the share).
    """
    if sys.platform == "linux":
        nice = os.getpriority(os.PRIO_PROCESS, 0) + 10
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(nice, 19))


def prefetch(items: Iterator[Item], ahead: int = 2, *, aside: bool = True) -> Prefetcher[Item]:
    """Make items in a background thread, at most `ahead` of them before they are asked for.

    Args:
        items: Usually a generator; it is run in one thread only, in order.
        ahead: 1 or more.
        aside: Lower the thread's priority. Not for what must keep up where other programs run.
    """
    if ahead < 1:
        raise ValueError(f"ahead: {ahead} must be 1 or more")
    return Prefetcher(items, ahead, aside)
