"""A learning-rate range test for each stage: the rate rises step by step, and the loss says where.

    print(sw.lr_find("toy"))

Smith (arXiv 1506.01186), with the exponential ramp and the stop of fastai: training steps on real
batches of a stage, with its path, frozen parts, noise and objective, at rates from `low` to `high`,
each a fixed multiple of the last. What is read off the losses is in `lr_curve.py`.

A stage begins where it would in a run (`stepping/beginning.py`): at the end of the stage before, as
a run has kept it; or after the stages before have trained some steps each at `optim.lr`. All of it
is done in a scratch folder, which is gone afterwards; nothing else is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from stackwise.asked import an_experiment, usual_placement
from stackwise.errors import ExperimentError
from stackwise.lr_curve import LrFound, Ramp, read
from stackwise.memory.flops import (
    counted_frac,
    forward_flops_per_token,
    head_flops_per_position,
    stage_flops_per_token,
)
from stackwise.report import count_text
from stackwise.runs import Run
from stackwise.stepping import Stepper
from stackwise.training.forking import check_changes
from stackwise.training.kept_stages import folder_of, kept_stages
from stackwise.training.manifest import read_manifest
from stackwise.training.ownership import RACK
from stackwise.training.start import stages_of

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement
    from stackwise.stage import Stage

SAME = ("path", "active", "new", "embedding", "head", "band")  # of stages that are done
LEFT_OUT = 10  # the first tenth of the ramp, in which the loss has not settled, as in fastai
DIVERGED = 4.0  # times the lowest smoothed loss
LEAST_STEPS, MOST_RATE = 20, 10.0


def lr_find(
    exp: Experiment | str,
    placement: Placement | None = None,
    *,
    stage: int | None = None,
    run: Run | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    lead_steps: int | None = None,
    tell: Callable[[str], object] | None = None,
) -> LrFound:
    """Try learning rates from `low` to `high` in a stage, or in each.

    Args:
        exp: What is to be trained, or a preset's name.
        placement: How steps are carried out; None for the usual way. The trunk is computed, and
            nothing compiled.
        stage: The stage; None for all.
        run: A run whose kept ends of stages the later ones begin with, as if they went on there;
            None to train the stages before, here.
        low: The first rate, over 0.
        high: The last one, up to 10.
        steps: Steps of the ramp, 20 or more. A stage of fewer reads its batches again.
        lead_steps: Steps of each stage before, where no run has kept its end; None for as many as
            the ramp has.
        tell: Is given sentences: what it will cost, what was done, what it cost.

    Returns:
        The same for the same experiment, whatever was done before.

    Raises:
        ExperimentError: If there is no such stage, the ramp is none, or the run's stages are not
            those of the experiment.
        DataError: If the corpus cannot be read.
        TrainingError: If a loss of a stage before is no number.
    """
    lead = steps if lead_steps is None else lead_steps
    _check_ramp(low, high, steps, lead)
    say = tell or (lambda sentence: None)
    with Stepper(an_experiment(exp), 0, placement or usual_placement(exp), keeper=run) as stepper:
        exp, stages, found = stepper.exp, stepper.stages, []
        chosen = range(len(stages)) if stage is None else [stepper.beginning(stage).stage]
        if run is not None:
            _check_run(exp, stages[: max(chosen)], run)
        for note in stepper.notes:
            say(note)
        tokens, flops = _planned(stepper, chosen, steps, lead)
        say(f"This will take up to {_amounts(tokens, flops)}.")
        tokens, flops = 0, 0.0
        for number in chosen:
            begins = stepper.beginning(number)
            stepper.begin(number, lead_steps=lead)
            for before in range(begins.first, number):
                more, spent = _lead(exp, stages[before], lead)
                tokens, flops = tokens + more, flops + spent
            ramp = _ramp(stepper, low, high, steps)
            tokens += steps * _batch(exp)
            flops += _ramp_flops(exp, stages[number], ramp, steps)
            name, said = stages[number].name, _said(number, lead, run)
            say(f"stage {number} ({name}) {said}; {len(ramp.losses)} steps of its ramp were taken.")
            found.append(read(number, name, said, ramp, first=steps // LEFT_OUT))
        say(f"It took {_amounts(tokens, flops)}; nothing of it is kept.")
    return LrFound(tuple(found), tokens, flops)


def _check_ramp(low: float, high: float, steps: int, lead: int) -> None:
    if not (math.isfinite(low) and low > 0):
        raise ExperimentError(f"low: {low} must be over 0; the rate is multiplied from there")
    if not low < high <= MOST_RATE:
        raise ExperimentError(f"high: {high} must be over low={low}, and at most {MOST_RATE:g}")
    if steps < LEAST_STEPS:
        raise ExperimentError(f"steps: {steps} are too few to smooth; give {LEAST_STEPS} or more")
    if lead < 0:
        raise ExperimentError(f"lead_steps: {lead} must be 0 or more")


def _check_run(exp: Experiment, before: Sequence[Stage], run: Run) -> None:
    """Raise unless a run's kept ends of stages are those that an experiment would come to."""
    theirs = stages_of(run)[: len(before)]
    for number, (ours, other) in enumerate(zip_longest(before, theirs)):
        if other is None or any(getattr(ours, key) != getattr(other, key) for key in SAME):
            raise ExperimentError(
                f"run: stage {number} of {run.id} is not that of the experiment "
                f"({ours.name}); name a run of the same curriculum, or leave it out"
            )
    ends = [end for end in kept_stages(run.path) if end < len(before)]
    if before and not ends:
        raise ExperimentError(
            f"run: {run.id} has kept no end of stages 0 to {len(before) - 1}, as with "
            "placement.keep_stages=false; leave it out, and they are trained"
        )
    for end in ends:
        check_changes(run.experiment, exp, read_manifest(folder_of(run.path, end) / RACK))


def _batch(exp: Experiment) -> int:
    return exp.optim.batch * exp.data.seq_len


def _lead(exp: Experiment, stage: Stage, steps: int) -> tuple[int, float]:
    """Tokens and FLOPs of some steps of a stage, or of all that it has."""
    tokens = min(steps * _batch(exp), stage.tokens or 0)
    return tokens, tokens * stage_flops_per_token(exp, stage).total


def _planned(stepper: Stepper, chosen: Sequence[int], steps: int, lead: int) -> tuple[int, float]:
    """Tokens and FLOPs of ramps that come to their end, and of the stages trained for them."""
    exp, stages, spent = stepper.exp, stepper.stages, []
    trained = -1  # the last stage whose end is there by then
    for number in chosen:
        first = max(stepper.beginning(number).first, trained + 1)
        spent += [_lead(exp, stages[before], lead) for before in range(first, number)]
        trained = number - 1
        tokens, stage = steps * _batch(exp), stages[number]
        each = stage_flops_per_token(exp, stage).total + _look(exp, stage, counted_frac(exp, stage))
        spent.append((tokens, tokens * each))
    return sum(tokens for tokens, _ in spent), sum(flops for _, flops in spent)


def _look(exp: Experiment, stage: Stage, counted: float) -> float:
    """FLOPs of a loss alone, per token, of which a fraction counts."""
    return forward_flops_per_token(exp, stage.path) + head_flops_per_position(exp) * counted


def _ramp_flops(exp: Experiment, stage: Stage, ramp: Ramp, steps: int) -> float:
    """FLOPs of a ramp: a look at every batch, and the steps that were taken."""
    cost, read = stage_flops_per_token(exp, stage), len(ramp.losses) * _batch(exp)
    looked = steps * _batch(exp)
    taken = (cost.total - cost.head) * read + cost.head_per_position * ramp.counted
    return taken + looked * _look(exp, stage, ramp.looked_at / looked)


def _ramp(stepper: Stepper, low: float, high: float, steps: int) -> Ramp:
    """Take steps at rising rates, until the loss is no number or far over its lowest."""
    looks = [stepper.loss_of(step % stepper.steps) for step in range(steps)]
    ramp = Ramp([loss for loss, _ in looks], sum(counted for _, counted in looks), [], [])
    for step in range(steps):
        rate = low * (high / low) ** (step / (steps - 1))
        try:
            numbers = stepper.take(step % stepper.steps, rate)
        except FloatingPointError:
            ramp.diverged = rate
            break
        ramp.rates.append(rate)
        ramp.losses.append(numbers.loss)
        ramp.counted += numbers.counted
        smoothed = ramp.smoothed()
        if step > steps // LEFT_OUT and smoothed[-1] > DIVERGED * min(smoothed):
            ramp.diverged = rate
            break
    return ramp


def _said(stage: int, lead: int, run: Run | None) -> str:
    """Where the weights of a stage came from."""
    ends = [] if run is None else [end for end in kept_stages(run.path) if end < stage]
    first = max(ends, default=-1) + 1
    kept = f"begins at the end of stage {first - 1} of {run.id}" if run and ends else "begins"
    if first == stage:
        return kept if ends else "begins as a run does"
    which = f"of stage {first}" if first == stage - 1 else f"each of stages {first} to {stage - 1}"
    return f"{kept} after {lead} steps {which} at optim.lr"


def _amounts(tokens: int, flops: float) -> str:
    return f"{count_text(tokens)} tokens and {flops:.3g} FLOPs"
