"""A budget that is a time, as tokens: what a machine reads in it by the planner's arithmetic.

    exp = sw.Experiment.preset("toy").replace(budget={"hours": 2})
    print(sw.plan(exp))            # its tokens, stage by stage
    sw.timed(exp).budget           # the same in tokens

Of each stage it is forecast what a step, a look, a checkpoint and its borders take; a run keeps
these figures beside it (`pace.json`) and follows the clock from there (`training/pacer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackwise.asked import a_placement, an_experiment, usual_placement
from stackwise.budget import steps_of
from stackwise.completion import packing
from stackwise.curriculum import own_tokens, stages
from stackwise.errors import ExperimentError
from stackwise.memory.disk import ENDLESS
from stackwise.memory.stored import stack_bytes
from stackwise.pacing import Forecast, Left, Pace, Speeds
from stackwise.planner.bars import bars_for, between
from stackwise.planner.hardware import THIS, Hardware, hardware_called
from stackwise.planner.needs import placed_on
from stackwise.planner.stage_seconds import (
    StageOn,
    checkpoint_seconds,
    final_seconds,
    look_seconds,
    stage_seconds,
)
from stackwise.probing import as_probed
from stackwise.report import program
from stackwise.stage import Stage

if TYPE_CHECKING:
    from stackwise.config import Budget, Experiment, Placement

FILES_KEPT = 0.7  # of a host's memory: what the system keeps there of files that are read
MOST_TOKENS = 10**15 // 2
MOST_STEPS = 1 << 20  # that the first steps of all stages may take
ROUNDS = 8  # what does not grow with the budget is little of most times
NEAR = 1e-3


def timed(
    exp: Experiment | str,
    placement: Any = None,
    *,
    hardware: Hardware | str | Path = "this",
) -> Experiment:
    """An experiment whose budget is a time, with the tokens that a machine reads in it.

    Args:
        exp: The experiment, or a preset's name; one whose budget is no time is given back.
        placement: How it is carried out, as for `plan`.
        hardware: On what, as for `plan`.

    Raises:
        ExperimentError: If the machine's speed is not known, or the time is not enough for one step
            of every stage.
    """
    asked = an_experiment(exp)
    if asked.budget.seconds is None:
        return asked
    place = a_placement(placement) or usual_placement(exp)
    machine = hardware if isinstance(hardware, Hardware) else hardware_called(hardware)
    return in_tokens(asked, placed_on(place, machine), machine)


def in_tokens(
    exp: Experiment,
    placement: Placement,
    machine: Hardware,
    *,
    epoch_samples: int = ENDLESS,
    scored: int | None = None,
) -> Experiment:
    """The same for a machine and a placement on it.

    Args:
        exp: The experiment.
        placement: How it is carried out.
        machine: On what.
        epoch_samples: Samples of the training text, as for `plan`.
        scored: Held-out windows that are scored at the end; None: as `eval.final` says, and where
            it says nothing, none.

    Raises:
        ExperimentError: As `timed`.
    """
    seconds = exp.budget.seconds
    if seconds is None:
        return exp
    if machine.origin == "unknown":
        raise ExperimentError(
            f"budget.{exp.budget.unit}: {getattr(exp.budget, exp.budget.unit):g} is turned into "
            "tokens by the speed of this machine, which has not been measured; measure it with: "
            f"{program()} calibrate, or give tokens or flops"
        )

    def found(steps: int) -> tuple[Experiment, float]:
        """With so many steps of `data.seq_len` in all, and what they take."""
        made_of = exp.replace(budget={"tokens": steps * exp.optim.batch * exp.data.seq_len})
        made = stages(made_of)
        each = forecasts(made_of, placement, made, machine, epoch_samples, scored)
        return made_of, seconds_in_all(made_of, placement, made, each)

    own = own_tokens(exp)
    if own is not None:
        raise ExperimentError(
            f"curriculum.stages[{own[0]}].tokens: {own[1]} is a length of its own, and with "
            f"budget.{exp.budget.unit} the lengths of stages follow the clock; leave it out, and "
            "give the stage a share"
        )
    low = fewest_steps(exp)
    least, taken = found(low)
    if taken > seconds:
        raise ExperimentError(_too_short(exp.budget, taken, machine))
    high, over = 2 * low, found(2 * low)[1]
    most = MOST_TOKENS // (exp.optim.batch * exp.data.seq_len)
    for _ in range(ROUNDS):
        slope = max((over - taken) / (high - low), 1e-12)
        wanted = max(low, min(int(low + (seconds - taken) / slope), most))
        again, needs = found(wanted)
        if needs <= seconds:
            low, least, taken = wanted, again, needs
            if taken >= seconds * (1 - NEAR):
                break
            high, over = 2 * wanted, found(2 * wanted)[1]
        else:
            high, over = wanted, needs
        if high - low <= 1:
            break
    return least


def forecasts(
    exp: Experiment,
    placement: Placement,
    made: Sequence[Stage],
    machine: Hardware,
    epoch_samples: int = ENDLESS,
    scored: int | None = None,
) -> tuple[Forecast, ...]:
    """What each stage takes on a machine, piece by piece; arguments as for `in_tokens`."""
    looked, last = as_probed(exp, made), len(made) - 1
    found = []
    for number, stage in enumerate(made):
        lent = len(stage.path) * stack_bytes(exp, packing(exp.precision))
        from_disk = lent > FILES_KEPT * machine.host_bytes
        on = StageOn(looked, placement, stage, machine, from_disk)
        taken = stage_seconds(
            looked,
            placement,
            made,
            number,
            machine,
            epoch_samples=epoch_samples,
            from_disk=from_disk,
        )
        ends, more = (
            checkpoint_seconds(looked, made, number, machine, inside=inside) for inside in (0, 1)
        )
        score = 0.0
        if number == last:
            windows = {"final": exp.eval.final if scored is None else scored}
            scoring = looked.model_copy(update={"eval": looked.eval.model_copy(update=windows)})
            score = final_seconds(replace(on, exp=scoring))
        found.append(
            Forecast(
                step=taken.step.total,
                fill=taken.filling / steps_of(exp, stage),
                look=look_seconds(on),
                save=more - ends,
                enter=taken.starting,
                leave=taken.freezing + ends,
                final=score,
            )
        )
    return tuple(found)


def seconds_in_all(
    exp: Experiment, placement: Placement, made: Sequence[Stage], each: Sequence[Forecast]
) -> float:
    """Seconds of a whole run, by what was forecast of its stages."""
    steps = [steps_of(exp, stage) for stage in made]
    whole = Left(
        forecasts=each,
        launched=steps,
        steps=steps,
        number=0,
        step=0,
        factor=1.0,
        points=as_probed(exp, made).eval.points,
        every=placement.checkpoint_seconds,
    )
    return whole.seconds(steps, Speeds())


def pace_of(machine: Hardware, seconds: float, each: Sequence[Forecast], taken: float) -> Pace:
    """What a run keeps of its forecast.

    Args:
        machine: The machine.
        seconds: The budget.
        each: What was forecast of each stage.
        taken: What they are forecast to take in all.
    """
    low, high = between(taken, bars_for(machine).time)
    return Pace(
        seconds=seconds,
        hardware=machine.name,
        said=machine.said,
        low=low,
        high=high,
        forecasts=tuple(each),
    )


def fewest_steps(exp: Experiment) -> int:
    """Steps that are enough for every stage to have one.

    Raises:
        ExperimentError: If no number of them is.
    """
    size = exp.optim.batch * exp.data.seq_len

    def enough(steps: int) -> bool:
        try:
            return bool(stages(exp.replace(budget={"tokens": steps * size})))
        except ExperimentError:
            if steps > MOST_STEPS:
                raise
            return False

    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _too_short(budget: Budget, taken: float, machine: Hardware) -> str:
    from stackwise.config import SECONDS

    unit, size = budget.unit, SECONDS[budget.unit]
    where = "this machine" if machine.name == THIS else machine.name
    enough = float(f"{1.01 * taken / size:.2g}")
    enough = enough if enough * size >= taken else float(f"{1.1 * taken / size:.2g}")
    return (
        f"budget.{unit}: {getattr(budget, unit):g} is {budget.seconds:.3g} seconds, less than one "
        f"step of every stage takes on {where}, {taken:.3g}; give at least {enough:g}, "
        "lower optim.batch, or take a curriculum of fewer stages"
    )
