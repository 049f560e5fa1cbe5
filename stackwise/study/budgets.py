"""What every arm may spend: equal FLOPs, equal tokens, or equal seconds by one calibration.

FLOPs and tokens are counted, so that they are the same on any machine. Seconds are not: the planner
(`stackwise/planner/`) says from the rates of one machine how many tokens each arm can read in the
time that the base takes, and these numbers are frozen. They stand in the study's folder, so that
neither resuming nor another machine changes an arm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stackwise.config import Experiment, Placement
from stackwise.curriculum import stages
from stackwise.errors import ExperimentError
from stackwise.memory.flops import stage_flops_per_token
from stackwise.planner.hardware import Hardware, hardware_called
from stackwise.planner.plan import plan
from stackwise.planner.timed import fewest_steps
from stackwise.report import program
from stackwise.study.arms import Arm
from stackwise.training.start import settled

Equal = Literal["flops", "tokens", "seconds"]
EQUALS: tuple[Equal, ...] = ("flops", "tokens", "seconds")
MEASURING = "looks"  # of a stage's seconds: they measure, and train nothing


@dataclass(frozen=True)
class Calibrated:
    """Equal seconds as they were worked out once.

    Attributes:
        hardware: What the machine is called.
        said: Where its rates are from.
        seconds: Of training that each arm gets, looks at held-out text aside.
        tokens: What each arm can read in that time, by name.
    """

    hardware: str
    said: str
    seconds: float
    tokens: Mapping[str, int]


def spent(exp: Experiment) -> dict[str, float]:
    """What an experiment's stages spend: `tokens` and `flops`."""
    made = stages(exp)
    return {
        "tokens": sum(stage.tokens or 0 for stage in made),
        "flops": sum(
            (stage.tokens or 0) * stage_flops_per_token(exp, stage).total for stage in made
        ),
    }


def budget_of(base: Experiment, placement: Placement, unit: str) -> float:
    """The base's budget in tokens or FLOPs: as it says, or what it would spend."""
    asked = getattr(base.budget, unit)
    return float(asked) if asked is not None else spent(settled(base, placement)[0])[unit]


def training_seconds(exp: Experiment, placement: Placement, machine: Hardware) -> float:
    """Seconds that training takes on a machine, by arithmetic; looks at held-out text aside."""
    exp, placement = settled(exp, placement)
    rows = plan(exp, placement, hardware=machine).rows
    return float(sum(s for row in rows for k, s in row["seconds"].items() if k != MEASURING))


def machine_for_seconds(hardware: Hardware | str | Path) -> Hardware:
    """A machine whose speed is known.

    Raises:
        ExperimentError: If it is not, with the command that measures it.
    """
    machine = hardware if isinstance(hardware, Hardware) else hardware_called(hardware)
    if machine.origin == "unknown":
        raise ExperimentError(
            "equal: 'seconds' needs the speed of this machine, which has not been measured; "
            f"measure it with: {program()} calibrate, or name another with hardware="
        )
    return machine


def tokens_in(exp: Experiment, placement: Placement, machine: Hardware, seconds: float) -> int:
    """The tokens that an experiment reads in a time, to within a step: whole optimizer steps.

    Raises:
        ExperimentError: If the time is not enough for one step of every stage.
    """
    step = exp.optim.batch * exp.data.seq_len

    def time_of(steps: int) -> float:
        return training_seconds(exp.replace(budget={"tokens": steps * step}), placement, machine)

    least = fewest_steps(exp)
    if time_of(least) > seconds:
        raise ExperimentError(
            f"{seconds:.3g} seconds are less than one step of every stage takes, "
            f"{time_of(least):.3g}; raise the budget, or lower optim.batch"
        )
    low, high = least, 2 * least
    while time_of(high) < seconds:
        if time_of(high) <= time_of(low):
            raise ExperimentError(
                f"takes {time_of(high):.3g} seconds whatever its budget, since its stages have "
                f"tokens of their own, and every arm is to take {seconds:.3g}; leave them empty"
            )
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if time_of(middle) < seconds else (low, middle)
    return step * min((low, high), key=lambda steps: abs(time_of(steps) - seconds))


def in_seconds(
    base: Experiment,
    arms: Sequence[Arm],
    placement: Placement,
    hardware: Hardware | str | Path,
    known: Calibrated | None = None,
) -> Calibrated:
    """How many tokens each arm reads in the time that the base takes on a machine.

    Args:
        base: Whose time it is: what it would take, or what its budget says, if that is a time.
        arms: The arms.
        placement: How they are carried out.
        hardware: On what; not read where all is known.
        known: What was worked out before, which stays.

    Raises:
        ExperimentError: If the machine's speed is not known, or an arm cannot be planned.
    """
    done = dict(known.tokens) if known else {}
    left = [arm for arm in arms if arm.name not in done]
    if known is not None and not left:
        return known
    machine = machine_for_seconds(hardware)
    given = base.budget.seconds
    seconds = known.seconds if known else given or training_seconds(base, placement, machine)
    for arm in left:
        with named(arm):
            exp, where = settled(arm.experiment, placement)
            done[arm.name] = tokens_in(exp, where, machine, seconds)
    said = known or Calibrated(machine.name, machine.said, seconds, {})
    return Calibrated(said.hardware, said.said, seconds, done)


@contextmanager
def named(arm: Arm) -> Iterator[None]:
    """Name the arm in the errors of what it says."""
    try:
        yield
    except ExperimentError as error:
        lines = (f"arm {arm.name!r}: {problem}" for problem in error.problems)
        raise ExperimentError("\n".join(lines)) from None


def unequal(exp: Experiment, equal: str, budget: float) -> Iterator[str]:
    """How an arm misses the budget by over a step of its dearest stage, as with tokens of its own.

    Raises:
        ExperimentError: If its stages cannot be made.
    """
    made, found = stages(exp), spent(exp)[equal]
    step: float = exp.optim.batch * exp.data.seq_len
    if equal == "flops":
        step *= max(stage_flops_per_token(exp, stage).total for stage in made)
    if math.isfinite(budget) and abs(found - budget) > step:
        yield (
            f"spends {found:.4g} {equal} where every arm is to spend {budget:.4g}, to within a "
            f"step of {step:.4g}; leave tokens of its stages empty, or give them the whole budget"
        )
