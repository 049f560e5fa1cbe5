"""What ends a run in the middle of its work: a number that is none, memory that ran out.

Nothing is lost by either: the last checkpoint stays. Each is told with where it happened and with a
way out. Where a number that is none began is looked for in `diagnosis.py`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from stackwise.memory.ran_out import ran_out
from stackwise.memory.room import ways_left
from stackwise.objective import Corrupted
from stackwise.placement import Placement
from stackwise.runs import Run
from stackwise.training.diagnosis import found_in
from stackwise.training.in_backward import PartlyTaken
from stackwise.training.kept_stages import kept_stages
from stackwise.training.saved import BrokenWeights
from stackwise.training.start import NoMemory, NotFinite
from stackwise.training.step import Trainee
from stackwise.training.work import Work


@contextmanager
def refusals_named(work: Work, trainee: Trainee, noisy: Corrupted | None) -> Iterator[None]:
    """Say of a step whose loss or gradient is no number where that began; it ends the run.

    Args:
        work: The run.
        trainee: What trains.
        noisy: The batch; None where the step is shown in phases, and nothing is looked for.
    """
    try:
        yield
    except FloatingPointError as error:
        found = {} if noisy is None else found_in(work, trainee, noisy, error)
        taken = "Part of the step" if isinstance(error, PartlyTaken) else "No step"
        where = found.get("where")
        raise refusal(
            work,
            trainee,
            f"{error}{f'; it began in {where}' if where else ''}. {taken} was taken",
            {"what": str(error).partition(";")[0], **found},
            step=work.at.total_steps + 1,
        ) from error


@contextmanager
def saves_named(work: Work, trainee: Trainee) -> Iterator[None]:
    """Say of weights that are no numbers, found before they are saved, what they are."""
    try:
        yield
    except BrokenWeights as error:
        why = f"{error}: the step before moved them too far. They were not saved"
        facts = {"what": str(error), "part": error.part, "tensor": error.tensor}
        raise refusal(work, trainee, why, facts, step=work.at.total_steps) from error


def refusal(
    work: Work, trainee: Trainee, why: str, facts: Mapping[str, Any], *, step: int
) -> NotFinite:
    """The error that ends a run of which a number is none; an event tells the same in its parts.

    Args:
        work: The run.
        trainee: What trains.
        why: What is no number, and where it began.
        facts: The same for the event.
        step: In which step, counted from 1.
    """
    number, name = trainee.number, trainee.stage.name
    work.writer.event("not_finite", step=step, stage=number, name=name, **facts)
    is_saved = work.run.has_weights()
    saved = "the last checkpoint is intact" if is_saved else "there is no checkpoint yet"
    return NotFinite(
        f"step {step} (stage {number}, {name}): {why}, and {saved}. The same experiment "
        f"comes to the same number again; {way_out(work.run)}"
    )


def way_out(run: Run) -> str:
    """What to change, and from where on."""
    kept, other = (
        kept_stages(run.path),
        "with another optim.lr, optim.clip or precision it is another run",
    )
    if not kept:
        return other
    return (
        f"branch from the end of stage {kept[-1]} with another optim.lr or optim.clip: "
        f"stackwise fork {run.id} {kept[-1]} optim.lr=..., or "
        f"run.fork(after_stage={kept[-1]}, optim={{'lr': ...}}); {other}"
    )


@contextmanager
def memory_named(run: Run, placement: Placement) -> Iterator[None]:
    """Say of memory that runs out that nothing is lost, and what takes less."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not ran_out(error):
            raise
        said = (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
        raise NoMemory(
            f"run {run.id}: memory ran out ({said}); the last checkpoint is intact. Free some, or "
            f"go on otherwise: {ways_left(placement)}. Then resume it"
        ) from error


@contextmanager
def letting_go() -> Iterator[None]:
    """Let an error of memory that ran out hold none of it.

    A notebook keeps the last error, and with it all that the functions on its way had in hand.
    """
    try:
        yield
    except NoMemory as error:
        each: BaseException | None = error
        while each is not None:
            traceback.clear_frames(each.__traceback__)
            each = each.__cause__ or each.__context__
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        raise
