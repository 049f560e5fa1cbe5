"""Which corpus of a mixture each sample comes from, as a pure function of the sample's number.

Corpus c gives its j-th sample at the time (j + 1/2) / w_c, and all samples are put in the order of
their times, at equal ones the earlier corpus first (Webster's method of apportionment). So of the
first n samples each corpus has given w_c n / sum(w), to within less than one for two corpora and
half as many as there are corpora for more; nothing is drawn, and any stretch of the order is found
without what comes before. Each corpus goes through its own samples, epoch after epoch, in its own
seeded order, from where the stages before left off.

Shapes: B samples, C corpora.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from stackwise.data.batches import Batch, Ints, epoch_order
from stackwise.data.dataset import Dataset

OWN_ORDER = 1 << 32  # epochs of one corpus, so that no two corpora have the same order


def turns(weights: Sequence[float], first: int, count: int) -> tuple[Ints, Ints]:
    """The corpora of the samples numbered `first` to `first + count - 1`, and their own numbers.

    Args:
        weights: Of each corpus, 0 or more, not all 0.
        first: 0 or more.
        count: 0 or more.

    Returns:
        Which corpus gives each, and how many samples it gave before; both (B,).

    Source: greedy apportionment in `tests/unit/test_mixtures_are_exact.py`.
    """
    rate_C = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    early, late = max(0, first - len(rate_C)), first + count + len(rate_C)
    begin_C, end_C = _given(rate_C, early), _given(rate_C, late)
    corpus_N = np.repeat(np.arange(len(rate_C)), end_C - begin_C)
    own = [np.arange(begin, end) for begin, end in zip(begin_C, end_C, strict=True)]
    own_N = np.concatenate(own)
    order_N = np.lexsort((corpus_N, (own_N + 0.5) / rate_C[corpus_N]))
    skipped = first - int(begin_C.sum())
    chosen = order_N[skipped : skipped + count]
    return corpus_N[chosen], own_N[chosen]


def read_of(weights: Sequence[float], count: int) -> Ints:
    """How many of the first `count` samples each corpus gives, (C,)."""
    corpus_B, own_B = turns(weights, max(0, count - 2 * len(weights)), min(count, 2 * len(weights)))
    rate_C = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    found = _given(rate_C, max(0, count - len(weights)))
    np.maximum.at(found, corpus_B, own_B + 1)
    return found


def _given(rate_C: np.ndarray, time: int) -> Ints:
    """How many samples each corpus gives before a time."""
    return np.maximum(0, np.ceil(rate_C * time - 0.5)).astype(np.int64)


def mixed_batch(
    dataset: Dataset,
    weights: Sequence[float],
    firsts: Sequence[int] | Ints,
    *,
    first: int,
    place: int,
    batch: int,
    seed: int,
) -> Batch:
    """A batch of a mixture.

    Args:
        dataset: With the parts of a mixture.
        weights: Of the parts in this stage.
        firsts: Samples that stages before have read of each part.
        first: Samples that this stage has read before.
        place: The batch's first place in the order of the run, over which times are spread.
        batch: Samples of it.
        seed: Of the orders.
    """
    corpus_B, own_B = turns(weights, first, batch)
    sample_B, draw_B = np.empty(batch, dtype=np.int64), np.empty(batch, dtype=np.int64)
    for corpus in np.unique(corpus_B):
        here, rows = corpus_B == corpus, dataset.part_rows(int(corpus))
        draw_B[here], place_B = np.divmod(int(firsts[corpus]) + own_B[here], len(rows))
        for epoch in np.unique(draw_B[here]):
            order = epoch_order(len(rows), seed, int(epoch) + (int(corpus) + 1) * OWN_ORDER)
            of_epoch = here & (draw_B == epoch)
            sample_B[of_epoch] = rows.start + order[place_B[draw_B[here] == epoch]]
    places_B = np.arange(place, place + batch)
    ids_BT = torch.from_numpy(dataset.samples(sample_B))
    return Batch(ids_BT, sample_B, draw_B, places_B, turn_B=np.zeros_like(places_B))
