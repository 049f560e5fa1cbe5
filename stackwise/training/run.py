"""Carry out the stages of a run, from its folder, and go on where it stopped.

`train` makes a run folder and executes it; `execute` reads stages.json and knows nothing of the
function that made them, so a curriculum typed in a notebook cell runs here too. One step is in
`step.py`, what happens at the borders of a stage in `borders.py`, held-out measurements in
`watch.py`, files in `checkpoint.py` and `stackwise.runs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stackwise.alerts import alerting
from stackwise.asked import a_placement, an_experiment, usual_placement
from stackwise.config import Experiment, Placement
from stackwise.data.workers import made_in_order
from stackwise.detached.device_queue import holding
from stackwise.disk_errors import faults_of
from stackwise.mirrors.mirror import copy_now, mirror_of, mirrored
from stackwise.model.workspace import workspace
from stackwise.objective import Corrupted
from stackwise.own_code import Paths, carried_by
from stackwise.runs import Run, attach
from stackwise.runs.carried import check_trusted
from stackwise.runs.control import newest
from stackwise.stopping import gently, listening
from stackwise.training.borders import enter_stage, leave_stage, measured, setting_for
from stackwise.training.caching import caches_of, drop_caches, is_cached, mend, open_caches
from stackwise.training.earlier import check_unpruned, go_back
from stackwise.training.kept_stages import keep_stage
from stackwise.training.moving import changed_placement
from stackwise.training.obeying import take_orders, wait_while_paused
from stackwise.training.opening import open_work
from stackwise.training.pacer import decide
from stackwise.training.picking import path_at
from stackwise.training.rates import stage_lr
from stackwise.training.refusing import letting_go, refusals_named, saves_named
from stackwise.training.residence import gather
from stackwise.training.rows import rows_trained
from stackwise.training.saved import save_work
from stackwise.training.stage_drift import note_beginning
from stackwise.training.start import create_run, seen_from, settled
from stackwise.training.step import Setting, StepNumbers, Trainee, training_step
from stackwise.training.watch import finish, moves_of, watch
from stackwise.training.way_back import way_back
from stackwise.training.work import Stopped as Stopped
from stackwise.training.work import Work
from stackwise.trunk.cache import TrunkCache
from stackwise.trunk.shards import DamagedShard

OnStep = Callable[[Work, StepNumbers], None]


def train(
    exp: Experiment | str,
    placement: Placement | str | None = None,
    *,
    rerun: bool = False,
    code: Paths = (),
    on_step: OnStep | None = None,
    mirror: str | None = None,
    alert: str | None = None,
) -> Run:
    """Train an experiment in this process, to its end.

    The run is named by what decides its numbers; if it is there already, it is attached to, and
    goes on if it is unfinished, from then on as this placement says.

    Args:
        exp: What to train: an experiment, or a preset's name.
        placement: How to carry it out, or the device alone; None for the defaults, a preset's own
            if it has any, or for a run that is there already what it has been carried out with.
        rerun: Make another run even if one is there.
        code: Files of your own that bring its kinds; the run carries them, so that it goes on
            elsewhere.
        on_step: Called after every step.
        mirror: An fsspec address that each checkpoint is copied to; None for STACKWISE_MIRROR,
            empty for none (docs/keeping.md).
        alert: A command that is called when the run ends; None for STACKWISE_ALERT, empty for none.

    Returns:
        The run; `run.rack()` is its model.

    Raises:
        ExperimentError: If stages, rack, data and budget do not go together.
        DataError: If the corpus cannot be read.
        NotFinite: If a loss or a gradient is not finite; that step is not taken.
        NoMemory: If memory runs out.
    """
    placement = a_placement(placement)
    made, whole = settled(an_experiment(exp), placement or usual_placement(exp))
    run = create_run(made, whole, rerun=rerun, code=carried_by(made, code))
    new = seen_from(run.path, whole) if placement else None
    with alerting(run, alert), letting_go():
        return execute(run, new, on_step=on_step, mirror=mirror)


def resume(
    run: Run | str | Path,
    *,
    placement: Placement | Mapping[str, Any] | None = None,
    trust: bool = False,
    on_step: OnStep | None = None,
    checkpoint: int | None = None,
    mirror: str | None = None,
    alert: str | None = None,
) -> Run:
    """Go on from a run's last checkpoint; to the same weights as if it had never stopped.

    Args:
        run: The run; or its folder, its id in `runs`, or the beginning of its id.
        placement: How to carry it out from here on: keys that change, as `{"device": "cuda"}`, or
            a whole placement, whose folders are not read; None for as before.
        trust: Import the code that it carries, if it does: it runs as you, so read it first.
        on_step: Called after every step.
        checkpoint: The step of an earlier one to go back to, of those that `run.checkpoints()`
            lists; None for the last.
        mirror: As for `train`.
        alert: As for `train`.

    Raises:
        ExperimentError: If the placement cannot be had here, or its disk has too little room.
        RunError: If there is no such run, or several.
        TrustError: If it carries code that is neither known here nor trusted.
        RunBusy: If another process is training it.
        CheckpointError: If its checkpoint is damaged.
        NotFinite, NoMemory: As for `train`.
        Changed: If what it reads is not what it began with.
    """
    run = run if isinstance(run, Run) else attach(run, Placement().runs_dir)
    check_trusted(run, trust)
    new = None if placement is None else changed_placement(run, placement)
    if checkpoint is not None:
        go_back(run, checkpoint)
    with alerting(run, alert), letting_go():
        return execute(run, new, on_step=on_step, mirror=mirror)


def execute(
    run: Run,
    placement: Placement | None = None,
    *,
    on_step: OnStep | None = None,
    mirror: str | None = None,
    through: int | None = None,
    obeyed: int | None = None,
    holds_device: bool = False,
) -> Run:
    """Run the stages that are left. A finished run is returned as it is.

    Ctrl-C and SIGTERM end it after the step in hand, with its state saved; so does what is asked
    through its folder. Before the first step, after the last one, and when they come again, they
    end it at once: it goes on from its last checkpoint.

    Args:
        run: The run.
        placement: Another one from here on, its folders seen from the run's; None for the one
            that is there.
        on_step: Called after every step.
        mirror: As for `train`.
        through: The stage after which it stops; None for the last one.
        obeyed: The number of the last order that was for an earlier attempt; None for all that
            there are.
        holds_device: Whether it is its turn in the queue of its device already; else it joins that,
            so that launched runs wait for it, and waits for nobody.
    """
    asked, mirror = mirror is not None, mirror_of(mirror)
    if run.state == "finished":
        if mirror:
            copy_now(run, mirror, asked=asked)
        return run
    check_unpruned(run)
    with (
        listening(),
        mirrored(run, mirror) as copies,
        way_back(run),
        faults_of(run.path),
        open_work(run, placement, mirror=copies) as work,
        nullcontext() if holds_device else in_queue(work),
        workspace(small=True),
    ):
        work.obeyed = newest(run.path) if obeyed is None else obeyed
        work.writer.tell(obeyed=work.obeyed, heard=work.obeyed, through=through)
        try:
            with gently(work.ask_to_stop):
                keep_stage(work)
                for number in range(work.at.stage, len(work.stages)):
                    if through is not None and number > through:
                        raise Stopped
                    train_stage(work, number, on_step)
            if work.stop_requested:
                raise Stopped
            gather(work)
            finish(work)
            drop_caches(caches_of(work.run, work.placement))
        except Stopped:
            work.writer.close("stopped")
    return run


def train_stage(work: Work, number: int, on_step: OnStep | None) -> None:
    """Train one stage from wherever its counters stand to its end."""
    if work.at.step == 0:
        decide(work, number)
    trainee = enter_stage(work, number)
    note_beginning(work, number)
    setting = setting_for(work, trainee)
    if work.pacer is not None:
        work.pacer.laps.begin(number, border=work.at.step == 0)
    while work.at.step < work.steps_of(number):  # once, unless the clock changes the length
        take_steps(work, trainee, setting, on_step)
    with saves_named(work, trainee):
        leave_stage(work, trainee)
    keep_stage(work)
    wait_while_paused(work)
    if work.stop_requested:
        raise Stopped


def take_steps(work: Work, trainee: Trainee, setting: Setting, on_step: OnStep | None) -> None:
    """Take the steps that are left of a stage, or those until the clock makes other stages."""
    exp, number = work.exp, trainee.number
    stage, steps = work.stages[number], work.steps_of(number)
    with closing(inputs(work, number)) as batches:
        for noisy in batches:
            moves = moves_of(work, trainee)
            began = time.perf_counter()
            rate = stage_lr(exp.optim, stage, work.at.step, steps)
            now = setting.on(path_at(stage, exp.seed, work.at.total_steps))
            with measured(work, trainee, noisy), refusals_named(work, trainee, noisy):
                numbers = training_step(work.rack, noisy, now, trainee, rate)
            work.count(number, noisy, numbers, rate, time.perf_counter() - began)
            if on_step is not None:
                on_step(work, numbers)
            if work.pacer is not None:
                work.pacer.laps.step()
            watch(work, trainee, numbers, moves)
            take_orders(work)
            if work.at.step == steps:
                return  # the border saves, whatever is asked
            other = decide(work, number)
            if work.stop_requested or work.paused or work.checkpoint_due():
                with saves_named(work, trainee):
                    save_work(work, trainee)
            wait_while_paused(work)
            if work.stop_requested:
                raise Stopped
            if other:
                return  # what was read ahead is of the stages as they were


@contextmanager
def in_queue(work: Work) -> Iterator[None]:
    """Let launched runs wait for this one, and say which ones share its device."""
    with holding(work.device.type, work.run.path) as others:
        if others:
            names = [Path(other.run).name for other in others]
            work.writer.event("device_shared", device=work.device.type, runs=names)
        yield


def inputs(work: Work, number: int) -> Generator[Corrupted]:
    """The batches that are left of a stage, made ahead of the step by `placement.data_workers`.

    Where the trunk is cached they come with what it gives; a damaged piece of it is made anew.
    """
    cache = open_caches(work, number) if is_cached(work, number) else None
    if work.pacer is not None:
        work.pacer.laps.lap()  # filling is no part of a step
    while True:
        steps, workers = range(work.at.step, work.steps_of(number)), work.placement.data_workers
        try:
            with made_in_order(partial(noisy_batch, work, number), steps, workers) as batches:
                yield from batches if cache is None else with_rows(work, batches, cache, steps)
            return
        except DamagedShard as damage:
            assert cache is not None
            mend(work, number, rows_trained(work, number), cache, damage)


def noisy_batch(work: Work, number: int, step: int) -> Corrupted:
    """The corrupted batch of a step, where a card copies from; a pure function of the counters."""
    batch = work.noisy_batch(number, step)
    return batch.pinned() if work.device.type == "cuda" else batch


def with_rows(
    work: Work, noisy: Iterator[Corrupted], cache: TrunkCache, steps: range
) -> Iterator[Corrupted]:
    """Batches with what the trunk gives for them, read ahead by a thread of its own."""
    size, pinned = work.exp.optim.batch, work.device.type == "cuda"
    dtype = torch.float32 if cache.layout.dtype == "float32" else torch.bfloat16  # both exact
    first, count = steps.start * size, len(steps)
    with cache.batches(first, size, count, dtype=dtype, pinned=pinned) as rows:
        for batch, x_BTD in zip(noisy, rows, strict=True):
            yield replace(batch, trunk_BTD=x_BTD)
