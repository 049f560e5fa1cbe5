"""What happens at the borders of a stage: stacks are added, frozen and released."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from stackwise.completion import packing
from stackwise.config import Placement
from stackwise.memory.meter import Kept
from stackwise.model.frozen import FrozenLinear
from stackwise.objective import Corrupted, is_causal
from stackwise.stage import Stage, copied_from, untied_from
from stackwise.training.average import Average
from stackwise.training.checkpoint import Written
from stackwise.training.holding import Holding, holding_of
from stackwise.training.in_backward import stepping_of
from stackwise.training.layers import grow_tables
from stackwise.training.looks import loss_now
from stackwise.training.optim import (
    Optimizer,
    load_optimizer_state,
    optimizer_state,
    with_copies,
)
from stackwise.training.part_names import AVERAGE, BEFORE, MOMENTS
from stackwise.training.residence import arrange, pack, take_masters
from stackwise.training.restoring import read_state
from stackwise.training.saved import check_weights, save_border
from stackwise.training.stage_drift import forget_beginning, tell_drift, timed
from stackwise.training.step import Setting, Trainee, setting_of
from stackwise.training.trained import State, freeze_all_but
from stackwise.training.work import Work
from stackwise.trunk.border import border_of


def enter_stage(work: Work, number: int) -> Trainee:
    """Arrange the rack's stacks, freeze what the stage does not train, and set up what it does.

    A stage that is resumed finds its stacks, moments and averages in the checkpoint.
    """
    stage, exp = work.stages[number], work.exp
    fresh = work.at.step == 0
    arrange(work, number)
    if work.placement.compile:
        grow_tables(work.rack, stage.path, exp.data.seq_len, work.device)
    if number == untied_from(exp.rack, work.stages) and work.rack.untie():
        work.on_disk.discard("head")  # it has grown a table, whether it trains or not
        work.writer.event("untied", stage=number, why="head and embedding no longer train together")
    holding = holding_for(work, stage, fresh)
    named = freeze_all_but(work.rack.parts(), stage)
    rounding, trains = exp.precision.rounding, {part for part, _ in named}
    optimizer = Optimizer(
        exp.optim, named, rounding=rounding, seed=exp.seed, stage=number, shape=exp.rack
    )
    goes_on = not fresh or stage.optimizer_state != "reset"
    load_optimizer_state(optimizer, named, moments_for(work, stage, trains, fresh), whole=goes_on)
    if stage.pick is not None:
        optimizer.begin()  # a step moves only what it runs, and takes what the plan says
    if fresh:
        take_masters(work, named, optimizer)
        work.merged = {}
    average = None if exp.optim.ema is None else Average(named, exp.optim.ema, optimizer)
    if not fresh and average is not None:
        average.load(read_state(work, AVERAGE, trains), work.at.updates)
    work.meter.begin()
    if fresh:
        work.writer.event(
            "stage_started",
            stage=number,
            name=stage.name,
            path=list(stage.path),
            active=list(stage.active or ()),
            **({"adapters": {a.stack: a.rank for a in stage.adapters}} if stage.adapters else {}),
            tokens=stage.tokens,
            trained_parameters=sum(p.numel() for p in named.values()),
        )
    stepping = stepping_of(exp.optim, named, optimizer, work.rack, compiled=work.placement.compile)
    return Trainee(number, stage, named, optimizer, average, stepping, holding=holding)


def holding_for(work: Work, stage: Stage, fresh: bool) -> Holding | None:
    """What a stage is held to; one that is resumed finds the rack before it in the checkpoint."""
    holding = holding_of(work.rack, stage, causal=is_causal(work.exp.objective))
    if holding is not None and not fresh:
        holding.load(read_state(work, BEFORE, set(holding.state())))
    return holding


def moments_for(work: Work, stage: Stage, trains: set[str], fresh: bool) -> State:
    """The moments that parts begin with, those of copies being their source's."""
    if not fresh:
        return read_state(work, MOMENTS, trains)
    sources = set(copied_from(stage).values())
    return with_copies(read_state(work, MOMENTS, trains | sources), stage)


def setting_for(work: Work, trainee: Trainee, placement: Placement | None = None) -> Setting:
    """What stays the same over the steps of a stage that has been entered, as it is carried out."""
    exp, placement = work.exp, placement or work.placement
    return setting_of(
        work.rack,
        trainee.stage,
        causal=is_causal(exp.objective),
        micro_batch=placement.micro_batch,
        checkpointing=placement.checkpointing,
        compute=getattr(torch, exp.precision.compute),
        device=work.device,
        clip=exp.optim.clip,
        compiled=placement.compile,
        border=border_of(exp.precision),
        in_backward=trainee.in_backward,
        holding=trainee.holding,
    )


@contextmanager
def measured(work: Work, trainee: Trainee, noisy: Corrupted) -> Iterator[None]:
    """Measure the peak of a step that may be the highest, and bytes by category of the first."""
    size = work.placement.micro_batch or len(noisy.input_BT)
    largest = max(int(part.sum()) for part in noisy.counted_BT.split(size))
    last = work.at.step + 1 == work.steps_of(trainee.number)
    with work.meter.step(largest, last=last):
        if trainee.measured is not None:
            yield
            return
        with Kept(work.rack, noisy.trunk_BTD) as kept:
            yield
    plain = not (work.placement.checkpointing or work.placement.compile)
    moments = optimizer_state(trainee.optimizer, trainee.named)
    averages = trainee.average.state() if trainee.average is not None else {}
    trainee.measured = {
        "weights": weight_bytes(work) + (trainee.holding.bytes if trainee.holding else 0),
        "gradients": trainee.gradient_bytes,
        "optimizer": sum(t.nbytes for part in moments.values() for t in part.values()),
        "average": sum(t.nbytes for part in averages.values() for t in part.values()),
        "activations": kept.peak_bytes if plain else None,
    }


def weight_bytes(work: Work) -> int:
    """Of all weights in memory: as they train, as they are frozen, and the slots of lent ones."""
    kept: list[Tensor] = [*work.rack.parameters()]
    for module in work.rack.modules():
        if isinstance(module, FrozenLinear) and not module.is_lent:
            kept += module.tensors().values()
    return sum(tensor.nbytes for tensor in kept) + (work.shelf.bytes if work.shelf else 0)


def leave_stage(work: Work, trainee: Trainee) -> None:
    """Freeze what the next stage does not train at its average, and save the rack.

    Raises:
        BrokenWeights: If a weight is no number; the last checkpoint stays.
    """
    check_weights(trainee)
    if trainee.in_backward is not None:
        trainee.in_backward.close()
    number = trainee.number
    following = work.stages[number + 1] if number + 1 < len(work.stages) else None
    if trainee.average is not None:
        trainee.average.adopt_what_freezes(following)
    taken = {"peak": work.meter.peak, "resident": work.meter.resident}
    work.writer.event("memory", stage=number, **(trainee.measured or {}), **taken)
    work.writer.event("stage_finished", stage=number, name=trainee.stage.name, step=work.at.step)
    done = (
        sorted(set(trainee.stage.active or ()) - set(following.active or ())) if following else []
    )
    masters: dict[str, Written] = {}
    if done and packing(work.exp.precision) is not None:
        masters = packed(work, trainee, done)
    tell_drift(work, number)
    work.at.stage, work.at.step, work.at.updates = number + 1, 0, 0
    save_border(work, trainee, masters)
    forget_beginning(work)


def packed(work: Work, trainee: Trainee, stacks: Sequence[str]) -> dict[str, Written]:
    """Freeze stacks to less than they trained in, and write down what that does to the loss."""
    number = trainee.number
    with timed(work):
        before = loss_now(work, number)
    masters = pack(work, number, stacks, trainee.optimizer)
    with timed(work):
        after = loss_now(work, number)
    work.writer.event(
        "frozen",
        stage=number,
        stacks=list(stacks),
        format=packing(work.exp.precision),
        loss_before=before,
        loss_after=after,
    )
    return masters
