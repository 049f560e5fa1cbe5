"""What a run whose budget is a time begins with: its tokens by the planner, and a forecast to keep.

How the clock changes that while it trains is in `pacer.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stackwise.config import Experiment, Placement
from stackwise.data.batches import samples_per_epoch
from stackwise.data.dataset import Dataset
from stackwise.data.heldout import chosen
from stackwise.errors import ExperimentError
from stackwise.pacing import Pace
from stackwise.planner.bars import bars_for, off_by
from stackwise.planner.hardware import THIS, hardware_called
from stackwise.planner.needs import placed_on
from stackwise.planner.timed import forecasts, in_tokens, pace_of, seconds_in_all
from stackwise.planner.units import DAY, days_text
from stackwise.report import count_text
from stackwise.stage import FULL_BAND, Stage


def in_tokens_here(exp: Experiment, placement: Placement, dataset: Dataset) -> Experiment:
    """An experiment whose budget is a time, with the tokens that this machine reads in it.

    Raises:
        ExperimentError: As `in_tokens`.
    """
    machine = hardware_called(THIS)
    return in_tokens(
        exp,
        placed_on(placement, machine),
        machine,
        epoch_samples=samples_per_epoch(dataset, exp.optim.batch),
        scored=len(chosen(dataset, exp.eval.final)),
    )


def pace_here(
    asked: Experiment,
    exp: Experiment,
    placement: Placement,
    dataset: Dataset,
    made: Sequence[Stage],
) -> Pace:
    """What a run keeps of its time, and of what is forecast of its stages on this machine.

    Args:
        asked: The experiment; its budget is a time.
        exp: The same in tokens.
        placement: How it is carried out.
        dataset: Its text.
        made: Its stages.
    """
    machine, seconds = hardware_called(THIS), asked.budget.seconds
    assert seconds is not None
    place = placed_on(placement, machine)
    samples, scored = samples_per_epoch(dataset, exp.optim.batch), chosen(dataset, exp.eval.final)
    each = forecasts(exp, place, made, machine, samples, len(scored))
    return pace_of(machine, seconds, each, seconds_in_all(exp, place, made, each))


def said_of(pace: Pace, made: Sequence[Stage]) -> str:
    """What a time comes to, in a sentence."""
    tokens = count_text(sum(stage.tokens or 0 for stage in made))
    bar = bars_for(hardware_called(THIS)).time
    return (
        f"the budget is {days_text(pace.seconds / DAY)} of work: {tokens} tokens by the planner "
        f"({pace.said}; plans were off in {off_by('time', bar)}), and from then on by the clock"
    )


def without_lengths(made: Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages without what the clock decides of them, by which a run is known."""
    return tuple(unplaced(stage, tokens=None) for stage in made)


def unplaced(stage: Stage, **changes: Any) -> Stage:
    """A stage without its place in the run, and in a schedule that others share.

    Args:
        stage: The stage.
        changes: What it has otherwise, beside that.
    """
    place = {} if stage.lr == "per_stage" else {"lr_span": FULL_BAND}
    return stage.model_copy(update={"progress": FULL_BAND, **place, **changes})


def check_time_left(exp: Experiment, worked: float) -> None:
    """Raise if a fork's time was used up before it begins.

    Raises:
        ExperimentError: If so.
    """
    seconds, unit = exp.budget.seconds, exp.budget.unit
    if seconds is not None and worked >= seconds:
        raise ExperimentError(
            f"budget.{unit}: {getattr(exp.budget, unit):g}, and the run had been at work for "
            f"{days_text(worked / DAY)} by then, which counts; give more"
        )
