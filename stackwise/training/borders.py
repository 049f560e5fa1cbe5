"""What happens at the borders of a stage: stacks are added, frozen and released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stackwise.memory.meter import Kept
from stackwise.model.init import grow
from stackwise.stage import NewStack, untied_from
from stackwise.training.average import Average
from stackwise.training.in_backward import stepping_of
from stackwise.training.layers import grow_tables
from stackwise.training.optim import Optimizer, load_optimizer_state, optimizer_state
from stackwise.training.saved import AVERAGE, MOMENTS, save_work
from stackwise.training.step import Trainee
from stackwise.training.trained import freeze_all_but
from stackwise.training.work import Work


def enter_stage(work: Work, number: int) -> Trainee:
    """Add the stage's new stacks, freeze the rest, and set up what trains.

    A stage that is resumed finds its stacks, moments and averages in the checkpoint.
    """
    stage, exp = work.stages[number], work.exp
    fresh = work.at.step == 0
    for entry in stage.new or ():
        if entry.stack not in work.rack.stacks:
            add_stack(work, entry)
    if work.placement.compile:
        grow_tables(work.rack, stage.path, exp.data.seq_len, work.device)
    if number == untied_from(exp.rack, work.stages) and work.rack.untie():
        work.saved_parts.discard("head")  # it has grown a table, whether it trains or not
        work.writer.event("untied", stage=number, why="head and embedding no longer train together")
    named = freeze_all_but(work.rack.parts(), stage)
    optimizer = Optimizer(exp.optim, named, rounding=exp.precision.rounding, seed=exp.seed)
    average = Average(named, exp.optim.ema) if exp.optim.ema is not None else None
    if not fresh or stage.optimizer_state == "keep":
        load_optimizer_state(optimizer, named, work.restored.get(MOMENTS, {}))
    if not fresh and average is not None:
        average.load(work.restored.get(AVERAGE, {}), work.at.updates)
    work.restored, work.stage_peak = {}, None
    work.meter.reset()
    if fresh:
        work.writer.event(
            "stage_started",
            stage=number,
            name=stage.name,
            path=list(stage.path),
            active=list(stage.active or ()),
            tokens=stage.tokens,
            trained_parameters=sum(p.numel() for p in named.values()),
        )
    stepping = stepping_of(exp.optim, named, optimizer, work.rack, compiled=work.placement.compile)
    return Trainee(number, stage, named, optimizer, average, stepping)


def add_stack(work: Work, entry: NewStack) -> None:
    """Put a new stack into the rack, initialised as the stage says."""
    stack = work.rack.add(entry.stack)
    grow(stack, entry.init, work.rack.stacks[entry.source] if entry.source is not None else None)


@contextmanager
def measured(work: Work, trainee: Trainee) -> Iterator[None]:
    """Measure bytes by category over the first step of a stage; other steps run untouched."""
    if trainee.measured is not None:
        yield
        return
    with Kept(work.rack) as kept:
        yield
    plain = not (work.placement.checkpointing or work.placement.compile)
    moments = optimizer_state(trainee.optimizer, trainee.named)
    averages = trainee.average.state() if trainee.average is not None else {}
    trainee.measured = {
        "weights": sum(p.nbytes for p in work.rack.parameters()),
        "gradients": trainee.gradient_bytes,
        "optimizer": sum(t.nbytes for part in moments.values() for t in part.values()),
        "average": sum(t.nbytes for part in averages.values() for t in part.values()),
        "activations": kept.peak_bytes if plain else None,
    }


def leave_stage(work: Work, trainee: Trainee) -> None:
    """Freeze what the next stage does not train at its average, and save the rack."""
    if trainee.in_backward is not None:
        trainee.in_backward.close()
    number = trainee.number
    following = work.stages[number + 1] if number + 1 < len(work.stages) else None
    if trainee.average is not None:
        trainee.average.adopt_what_freezes(following)
    work.note_peak()
    work.writer.event("memory", stage=number, **(trainee.measured or {}), peak=work.stage_peak)
    work.writer.event("stage_finished", stage=number, name=trainee.stage.name, step=work.at.step)
    work.at.stage, work.at.step, work.at.updates = number + 1, 0, 0
    keeps = following is not None and following.optimizer_state == "keep"
    if keeps:
        work.restored = {MOMENTS: optimizer_state(trainee.optimizer, trainee.named)}
    save_work(work, trainee, moments=keeps, average=False)
