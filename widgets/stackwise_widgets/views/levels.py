"""A text corrupted at a noise level, by the project's own corruption.

Over diffusion time a level is a time. What corrupts is `sw.corrupt`; it draws times itself, so a
time is asked for as the narrow noise band around its masked fraction, or, where the number of
masked tokens is drawn (`stratified_k`), found among the draws of one batch. Over training progress
a level is how much of the training is done.

Shapes: T tokens, B samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

import stackwise as sw
from stackwise.block_diffusion import BlockDiffusion
from stackwise.objective import schedule_of
from stackwise.schedules import mask_ratio, schedule_kind

if TYPE_CHECKING:
    from stackwise import Experiment

WIDTH = 1e-6  # of the band around a masked fraction


class Level(NamedTuple):
    """A text at one noise level.

    Attributes:
        at: The level, 0 to 1: diffusion time, or part of the training done.
        asked: The masked fraction that the schedule gives there.
        input_T: What the rack reads; [MASK] is `vocab`, [START] one more.
        counted_T: The positions that count in the loss.
        vocab: Entries of the head.
    """

    at: float
    asked: float
    input_T: NDArray[np.int64]
    counted_T: NDArray[np.bool_]
    vocab: int

    @property
    def hidden_T(self) -> NDArray[np.bool_]:
        """The positions that read [MASK]."""
        return self.input_T == self.vocab


def kind_of(exp: Experiment) -> str:
    """What masking runs over: `time`, `progress`, or `none`."""
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    return "none" if schedule is None else schedule_kind(schedule.choice)


def ratio_at(exp: Experiment, level: float) -> float:
    """The masked fraction that the schedule gives at a level; 0 without a schedule."""
    schedule = schedule_of(exp.objective, exp.masking.schedule)
    if schedule is None:
        return 0.0
    if schedule_kind(schedule.choice) == "progress":
        return mask_ratio(schedule, level)
    return float(1 - sw.time_schedule(schedule).alpha(np.float64(level)))


def corrupted_at(
    exp: Experiment, ids_T: NDArray[np.int64], level: float, *, vocab: int, seed: int
) -> Level:
    """A text at a level.

    Args:
        exp: Its objective and masking decide how.
        ids_T: The text, one or more tokens.
        level: Diffusion time or part of the training, 0 to 1.
        vocab: Entries of the head.
        seed: Of the draw.
    """
    asked, size = ratio_at(exp, level), len(ids_T)
    if isinstance(exp.objective, BlockDiffusion):  # the text as one block
        exp = exp.replace(objective="diffusion")
    timed = kind_of(exp) == "time" and exp.objective.choice == "diffusion"
    counted = timed and exp.masking.sampling == "stratified_k"
    band = (max(0.0, asked - WIDTH), min(1.0, asked + WIDTH)) if timed and not counted else None
    rule = sw.Corruption(
        objective=exp.objective,
        vocab=vocab,
        batch_size=size if counted else 1,
        seed=seed,
        schedule=exp.masking.schedule,
        sampling=exp.masking.sampling,
        bell=exp.masking.bell,
        **({"band": band} if band else {}),
    )
    samples = size if counted else 1  # as many as there are numbers of masked tokens
    same_B = np.zeros(samples, dtype=np.int64)
    batch = sw.Batch(np.tile(ids_T, (samples, 1)), same_B, same_B, np.arange(samples))
    found = sw.corrupt(rule, batch, progress=level)
    hidden_B = (found.input_BT == vocab).sum(1).numpy()
    row = int(np.abs(hidden_B - asked * size).argmin())
    return Level(level, asked, found.input_BT[row].numpy(), found.counted_BT[row].numpy(), vocab)
