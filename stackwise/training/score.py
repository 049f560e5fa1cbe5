"""A rack's score on all held-out text: at the end of its run, and again whenever it is asked for.

Both go through `score`, so that the figure a run reported can be had again to the last bit. The
estimate itself is in `evaluation.py`; what is looked at while a run trains in `watch.py`.
"""

from __future__ import annotations

import torch

from stackwise.config import Experiment
from stackwise.data.dataset import Dataset
from stackwise.data.heldout import rows_at_once, some_windows
from stackwise.evaluation import Evaluation, evaluate
from stackwise.model.rack import Rack
from stackwise.runs import Run
from stackwise.runs.carried import check_trusted
from stackwise.training.changed import data_of
from stackwise.training.moving import changed_placement
from stackwise.training.start import device_of, lent_from, threads_of
from stackwise.training.step import autocast


def evaluate_run(
    run: Run,
    *,
    best: bool = False,
    raw: bool = False,
    seed: int | None = None,
    draws: int | None = None,
    device: str | None = None,
    trust: bool = False,
) -> Evaluation:
    """Score a run's rack on its held-out text, as its end does: a finished run's own figure.

    Args:
        run: The run, finished or not.
        best: As for `Run.rack`.
        raw: As for `Run.rack`.
        seed: Of the masks; None for the experiment's.
        draws: Masks per window; None for `eval.draws`.
        device: `auto`, `cpu` or `cuda`; None for the placement's.
        trust: Import the code that it carries, if it does: it runs as you, so read it first.

    Raises:
        ExperimentError: If the device is not here.
        TrustError: If it carries code that is neither known here nor trusted.
        DataError: If the corpus cannot be read.
        Changed: If it is no longer the one that the run began with.
        CheckpointError: If there is no checkpoint, or it is damaged.
    """
    check_trusted(run, trust)
    placement = changed_placement(run, None if device is None else {"device": device})
    dataset, target = data_of(run, placement), device_of(placement)
    with threads_of(placement):
        rack = run.rack(best=best, raw=raw, device=str(target), lent=lent_from(placement))
        exp = run.experiment.model_copy(update={"objective": rack.objective})  # its last blocks
        return score(rack, dataset, exp, target, seed=seed, draws=draws)


def score(
    rack: Rack,
    dataset: Dataset,
    exp: Experiment,
    device: torch.device,
    *,
    seed: int | None = None,
    draws: int | None = None,
) -> Evaluation:
    """Score a rack with the seed, the draws and the precision of its experiment, or others."""
    windows_NT, size = some_windows(dataset, exp.eval.final)
    with autocast(device, getattr(torch, exp.precision.compute)):
        return evaluate(
            rack,
            windows_NT,
            size,
            objective=exp.objective,
            seed=exp.seed if seed is None else seed,
            draws=exp.eval.draws if draws is None else draws,
            batch=rows_at_once(exp),
        )
