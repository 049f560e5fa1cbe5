"""What the clock decides of a run whose budget is a time, between two of its steps.

After a step, where enough of the time has passed since the last decision, and at each border, what
is left is fitted to the seconds that are left (`pacing.py`). A decision is on the disk before it
has an effect. A run that goes on takes the decisions that are written down where they were taken,
and asks the clock only after the last of them.

The clock (`clock.py`) stands in each checkpoint, and with each heartbeat in status.json: what a
kill loses is counted all the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise.budget import steps_of
from stackwise.course import paced
from stackwise.errors import ExperimentError
from stackwise.pacing import Decision, Left, Pace
from stackwise.runs import Run, RunError
from stackwise.runs.damage import RESTORE
from stackwise.runs.pace import PACE, paced_stages, read_pace, write_pace
from stackwise.runs.status import WORKED
from stackwise.runs.status import read as read_status
from stackwise.training.caching import caches_of, is_cached
from stackwise.training.clock import Clock, Laps

if TYPE_CHECKING:
    from stackwise.stage import Stage
    from stackwise.training.work import Work

WITHIN, AT_BORDERS = 0.05, 0.005  # of the time for steps goes by until the clock is asked again


@dataclass
class Pacer:
    """What a run whose budget is a time holds open of it.

    Attributes:
        pace: What was forecast and decided.
        clock: The time at work.
        launched: The stages as the run was launched with them.
        laps: How fast it is.
        taken: Decisions that have had their effect.
        asked: The clock when it was last asked.
        room: Time for steps that was left then.
    """

    pace: Pace
    clock: Clock
    launched: tuple[Stage, ...]
    laps: Laps
    taken: int = 0
    asked: float = 0.0
    room: float = 0.0

    @property
    def factor(self) -> float:
        """Part of their first length that later stages have."""
        return self.pace.decisions[self.taken - 1].factor if self.taken else 1.0

    @property
    def next(self) -> Decision | None:
        """The decision that is written down and has had no effect yet."""
        rest = self.pace.decisions[self.taken :]
        return rest[0] if rest else None


def pacer_of(run: Run) -> Pacer | None:
    """The clock of a run, going from now on; None if its budget is no time.

    Raises:
        RunError: If pace.json or stages.json is missing or damaged.
    """
    pace = read_pace(run)
    if pace is None:
        return None
    said = read_status(run.path).get(WORKED)
    told = float(said) if isinstance(said, int | float) and 0 <= said < math.inf else 0.0
    clock = Clock(max([told, *(each.seconds for each in pace.decisions[-1:])]))
    return Pacer(pace, clock, paced_stages(run, pace, 0), Laps(clock, pace.forecasts))


def take_up(work: Work) -> None:
    """Put the stages of a run back to where its last checkpoint was written.

    Raises:
        RunError: If decisions that it stands on are missing, or there are others.
    """
    pacer, count = work.pacer, work.at.decisions
    if pacer is None:
        return
    if count > len(pacer.pace.decisions):
        raise RunError(
            f"run {work.run.id}: {PACE} holds {len(pacer.pace.decisions)} decisions, and its "
            f"checkpoint was written after {count}; {RESTORE}"
        )
    pacer.taken = count
    following = pacer.next
    if following and (following.stage, following.step) < (work.at.stage, work.at.step):
        raise RunError(
            f"run {work.run.id}: {PACE} holds a decision that its checkpoint was written without; "
            f"{RESTORE}"
        )
    pacer.clock.at_least(max(work.at.worked, work.at.seconds + work.at.probe_seconds))
    speed = pacer.pace.decisions[count - 1].speed if count else 1.0
    pacer.laps = Laps(pacer.clock, pacer.pace.forecasts, speed)
    pacer.asked = pacer.clock.seconds()
    pacer.room = max(0.0, pacer.pace.seconds - pacer.asked)
    work.go_by(paced_stages(work.run, pacer.pace, count))


def decide(work: Work, number: int) -> bool:
    """Take the decision that stands at this point, or ask the clock if it is time to.

    Args:
        work: The run, between two steps, or before its next stage is entered.
        number: The stage in hand, or the next.

    Returns:
        Whether the stages are others from here on.

    Raises:
        OSError: If the decision cannot be written; then it has no effect.
    """
    pacer = work.pacer
    if pacer is None:
        return False
    decision = pacer.next
    if decision is None:
        decision = asked_now(work, pacer, number)
        if decision is None:
            return False
        pace = pacer.pace.model_copy(update={"decisions": (*pacer.pace.decisions, decision)})
        write_pace(work.run.path, pace)
        pacer.pace = pace
        tell(work, decision)
    elif (decision.stage, decision.step) != (number, work.at.step):
        return False
    pacer.taken += 1
    work.at.decisions = pacer.taken
    before, after = (
        work.stages,
        paced(work.exp, pacer.launched, pacer.pace.decisions[: pacer.taken]),
    )
    if after == before:
        return False
    work.go_by(after)
    return True


def asked_now(work: Work, pacer: Pacer, number: int) -> Decision | None:
    """What the clock decides here; None if nothing is to be decided yet."""
    step, worked = work.at.step, pacer.clock.seconds()
    begins = not (number or step)
    if begins or worked - pacer.asked < (WITHIN if step else AT_BORDERS) * pacer.room:
        return None
    last = pacer.pace.decisions[-1:]
    if last and (last[0].stage, last[0].step) == (number, step):
        return None
    left = left_of(work, pacer, number)
    speeds, seconds = pacer.laps.speeds(sum(left.present())), pacer.pace.seconds - worked
    pacer.asked, pacer.room = worked, max(0.0, seconds - left.beside(speeds))
    cached = is_cached(work, number)  # its rows are made before it begins
    count, factor = left.fitted(seconds, speeds, grows=not (cached and step))
    if cached and count > left.steps[number] and not has_room(work, number, count):
        count, factor = left.fitted(seconds, speeds, grows=False)
    return Decision(
        stage=number, step=step, steps=count, factor=factor, seconds=worked, speed=speeds.step
    )


def left_of(work: Work, pacer: Pacer, number: int) -> Left:
    """What is left of a run before a stage, or within it."""
    return Left(
        forecasts=pacer.pace.forecasts,
        launched=[steps_of(work.exp, stage) for stage in pacer.launched],
        steps=[steps_of(work.exp, stage) for stage in work.stages],
        number=number,
        step=work.at.step,
        factor=pacer.factor,
        points=work.exp.eval.points,
        every=work.placement.checkpoint_seconds,
    )


def has_room(work: Work, number: int, count: int) -> bool:
    """Whether the disk has room for the cache of a stage of so many steps."""
    from stackwise.training.placing import check_disk
    from stackwise.training.start import seen_from_here

    stage = work.stages[number]
    size = (stage.tokens or 0) // steps_of(work.exp, stage)
    made = list(work.stages)
    made[number] = stage.model_copy(update={"tokens": count * size})
    here = seen_from_here(work.run.path, work.placement)
    home = caches_of(work.run, work.placement)
    try:
        check_disk(work.exp, here, made, work.epoch_samples, work.run.path, home)
    except ExperimentError:
        return False
    return True


def tell(work: Work, decision: Decision) -> None:
    """Write down as an event what was decided, for those who watch."""
    work.writer.event(
        "paced",
        stage=decision.stage,
        step=work.at.total_steps,
        stage_step=decision.step,
        steps=[steps_of(work.exp, work.stages[decision.stage]), decision.steps],
        factor=decision.factor,
        worked_seconds=decision.seconds,
        speed=decision.speed,
    )
