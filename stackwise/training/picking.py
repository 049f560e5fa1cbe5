"""The path of one step, in stages that draw another one for each (`Stage.pick`).

The first and the last stack of the stage's path always run, the others by chance, in their order
(after RaPTr, arXiv 2402.05913; a fixed number of them here, so that what a step costs is known). It
is a pure function of the seed and of the step's number in the whole
run, so that a resumed run draws the same.
"""

from __future__ import annotations

import numpy as np

from stackwise.draws import Stream, smallest, uniform_BT
from stackwise.stage import FULL_BAND, Stage


def path_at(stage: Stage, seed: int, step: int) -> tuple[str, ...]:
    """The stacks that a step runs, in their order: `stage.pick` of its path, or all of them.

    Args:
        stage: The stage.
        seed: Of the run.
        step: Steps done before it, over all stages.
    """
    path, count = stage.path, stage.pick
    if count is None or count == len(path):
        return path
    u_1N = uniform_BT(seed, [step], [0], FULL_BAND, len(path), Stream.PATHS)
    if count > 1:
        u_1N[:, [0, -1]] = -1.0
    runs_N = smallest(u_1N, np.array([count]))[0]
    return tuple(stack for stack, runs in zip(path, runs_N, strict=True) if runs)


def stage_at(stage: Stage, seed: int, step: int) -> Stage:
    """A stage as one of its steps runs it, on that step's path."""
    if stage.pick is None:
        return stage
    path = path_at(stage, seed, step)
    return stage.model_copy(update={"path": path, "active": path, "pick": None})
