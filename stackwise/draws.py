"""Random numbers that belong to a sample, not to the moment at which it is drawn.

Every number comes from Philox, a counter-based generator (Salmon et al., SC 2011): its key is
(seed, stream), its counter (sample, draw, band). So a sample gets the same mask in any order, in
any micro-batch, on any number of workers and after any resume. What the numbers are used for is in
`objective.py`.

Shapes: B samples, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from stackwise.stage import FULL_BAND

if TYPE_CHECKING:
    from stackwise.masking import Sampling

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Stream(IntEnum):
    """What a draw is for: different streams are independent. Never renumber; data has 16 on."""

    MASK = 0
    TIME = 1
    EVALUATION = 2
    EVALUATION_ORDER = 3
    VISITS = 4
    PATHS = 5


def uniform_BT(
    seed: int,
    sample_B: Sequence[int] | Int,
    draw_B: Sequence[int] | Int,
    band: tuple[float, float],
    length: int,
    stream: Stream = Stream.MASK,
) -> Float:
    """Uniform numbers in [0, 1), a pure function of the arguments, row by row.

    One generator is kept and only its counter is set: making one per row takes several times as
    long and gives the same numbers (`tests/unit/test_masks_belong_to_samples.py`).

    Args:
        seed: Of the run, 0 or more.
        sample_B: Sample ids.
        draw_B: Which draw of the sample: its epoch.
        band: The noise band (low, high], compared as float32.
        length: Numbers per sample, T.
        stream: What they are for.

    Returns:
        (B, T), float64, multiples of 2^-53.
    """
    generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    state = generator.state
    counter = np.zeros((len(sample_B), 4), dtype=np.uint64)  # word 0 counts along the row
    counter[:, 1] = np.asarray(sample_B, dtype=np.int64).astype(np.uint64)
    counter[:, 2] = np.asarray(draw_B, dtype=np.int64).astype(np.uint64)
    counter[:, 3] = np.array(band, dtype=np.float32).view(np.uint64)[0]
    bits_BT = np.empty((len(counter), length), dtype=np.uint64)
    for row, start in zip(bits_BT, counter, strict=True):
        state["state"]["counter"] = start
        generator.state = state
        row[:] = generator.random_raw(length)
    return (bits_BT >> np.uint64(11)).astype(np.float64) * 2.0**-53


def time_fracs_B(
    seed: int,
    sample_B: Int,
    draw_B: Int,
    place_B: Int,
    *,
    batch: int,
    band: tuple[float, float] = FULL_BAND,
    sampling: Sampling = "antithetic",
    blocks: int = 1,
) -> Float:
    """Where each block of each sample stands in its band's diffusion time, uniform in (0, 1].

    `iid`: one number per sample. The others: (u + i/B) mod 1 (VDM, arXiv 2107.00630; in the code of
    MDLM, arXiv 2406.07524, each i has a u of its own, within 1/B) with i the sample's place in the
    seeded order of its draw, modulo B, and u one number per B places: B evenly spaced times,
    whatever the micro-batch. With n blocks in a sample that are i n + b out of B n, for block b
    (BD3-LM, arXiv 2503.09573, does so): the times of one sample lie side by side, and each block of
    all samples has evenly spaced ones.

    Args:
        seed: Of the run.
        sample_B: Sample ids.
        draw_B: Their epochs.
        place_B: Their places in the seeded order of the epoch.
        batch: Samples per optimizer step, the B of the formula.
        band: The noise band.
        sampling: How to draw.
        blocks: Of a sample, n; their times are (B n,), sample by sample.
    """
    if sampling == "iid":
        frac_B = uniform_BT(seed, sample_B, draw_B, band, blocks, Stream.TIME).flatten()
    else:
        group_B, draw_B = np.asarray(place_B) // batch, np.asarray(draw_B)
        groups = int(group_B.max(initial=0)) + 1  # one number names both: a quarter of the time
        key_G, row_B = np.unique(draw_B * groups + group_B, return_inverse=True)
        u_G = uniform_BT(seed, key_G % groups, key_G // groups, band, 1, Stream.TIME)[:, 0]
        place_BN = (np.asarray(place_B) % batch)[:, None] * blocks + np.arange(blocks)
        frac_B = ((u_G[row_B][:, None] + place_BN / (batch * blocks)) % 1).flatten()
    return np.where(frac_B == 0, 1.0, frac_B)


def smallest(uniform_BT: Float, count_B: Int) -> NDArray[np.bool_]:
    """Choose `count_B` positions of each row, uniformly: those with the smallest numbers.

    Args:
        uniform_BT: Independent uniform numbers, (B, T).
        count_B: How many to choose, 0 to T.
    """
    order_BT = np.argsort(uniform_BT, axis=1, kind="stable")
    chosen_BT = np.zeros(uniform_BT.shape, dtype=bool)
    rank_T = np.arange(uniform_BT.shape[1])
    np.put_along_axis(chosen_BT, order_BT, rank_T < np.asarray(count_B)[:, None], axis=1)
    return chosen_BT
