"""Carry out the stages of a run, from its folder, and go on where it stopped.

`train` makes a run folder and executes it; `execute` reads stages.json and knows nothing of the
function that made them, so a curriculum typed in a notebook cell runs here too. One step is in
`step.py`, what happens at the borders of a stage in `borders.py`, held-out measurements in
`watch.py`, files in `checkpoint.py` and `stackwise.runs`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stackwise.asked import a_placement, an_experiment, usual_placement
from stackwise.config import Experiment, Placement
from stackwise.data.batches import prefetch
from stackwise.detached.device_queue import holding
from stackwise.disk_errors import faults_of
from stackwise.model.workspace import workspace
from stackwise.objective import Corrupted
from stackwise.runs import Run, attach
from stackwise.runs.control import newest
from stackwise.training.borders import enter_stage, leave_stage, measured, setting_for
from stackwise.training.caching import caches_of, drop_caches, is_cached, mend, open_caches
from stackwise.training.in_backward import PartlyTaken
from stackwise.training.kept_stages import keep_stage, way_back
from stackwise.training.moving import changed_placement
from stackwise.training.obeying import take_orders, wait_while_paused
from stackwise.training.opening import open_work
from stackwise.training.picking import path_at
from stackwise.training.rates import stage_lr
from stackwise.training.residence import gather
from stackwise.training.rows import rows_trained
from stackwise.training.saved import save_work
from stackwise.training.stage_drift import note_beginning
from stackwise.training.start import (
    TrainingError,
    create_run,
    seen_from,
    settled,
)
from stackwise.training.step import StepNumbers, training_step
from stackwise.training.watch import finish, moves_of, watch
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
    on_step: OnStep | None = None,
) -> Run:
    """Train an experiment in this process, to its end.

    The run is named by what decides its numbers; if it is there already, it is attached to, and
    goes on if it is unfinished, from then on as this placement says.

    Args:
        exp: What to train: an experiment, or a preset's name.
        placement: How to carry it out, or the device alone; None for the defaults, a preset's own
            if it has any, or for a run that is there already what it has been carried out with.
        rerun: Make another run even if one is there.
        on_step: Called after every step.

    Returns:
        The run; `run.rack()` is its model.

    Raises:
        ExperimentError: If stages, rack, data and budget do not go together.
        DataError: If the corpus cannot be read.
        TrainingError: If a loss or a gradient is not finite; that step is not taken.
    """
    placement = a_placement(placement)
    made, whole = settled(an_experiment(exp), placement or usual_placement(exp))
    run = create_run(made, whole, rerun=rerun)
    return execute(run, seen_from(run.path, whole) if placement else None, on_step=on_step)


def resume(
    run: Run | str | Path,
    *,
    placement: Placement | Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> Run:
    """Go on from a run's last checkpoint; to the same weights as if it had never stopped.

    Args:
        run: The run; or its folder, its id in `runs`, or the beginning of its id.
        placement: How to carry it out from here on: keys that change, as `{"device": "cuda"}`, or
            a whole placement, whose folders are not read; None for as before.
        on_step: Called after every step.

    Raises:
        ExperimentError: If the placement cannot be had here, or its disk has too little room.
        RunError: If there is no such run, or several.
        RunBusy: If another process is training it.
        CheckpointError: If its checkpoint is damaged.
        TrainingError: As for `train`, or if the corpus has changed.
    """
    run = run if isinstance(run, Run) else attach(run, Placement().runs_dir)
    new = None if placement is None else changed_placement(run, placement)
    return execute(run, new, on_step=on_step)


def execute(
    run: Run,
    placement: Placement | None = None,
    *,
    on_step: OnStep | None = None,
    through: int | None = None,
    obeyed: int | None = None,
    holds_device: bool = False,
) -> Run:
    """Run the stages that are left. A finished run is returned as it is.

    Ctrl-C and SIGTERM end it after the step in hand, with its state saved; so does what is asked
    through its folder.

    Args:
        run: The run.
        placement: Another one from here on, its folders seen from the run's; None for the one
            that is there.
        on_step: Called after every step.
        through: The stage after which it stops; None for the last one.
        obeyed: The number of the last order that was for an earlier attempt; None for all that
            there are.
        holds_device: Whether it is its turn in the queue of its device already; else it joins that,
            so that launched runs wait for it, and waits for nobody.
    """
    if run.state == "finished":
        return run
    with (
        way_back(run),
        faults_of(run.path),
        open_work(run, placement) as work,
        nullcontext() if holds_device else in_queue(work),
        workspace(small=True),
        stop_signals(work),
    ):
        work.obeyed = newest(run.path) if obeyed is None else obeyed
        work.writer.tell(obeyed=work.obeyed, heard=work.obeyed, through=through)
        try:
            keep_stage(work)
            for number in range(work.at.stage, len(work.stages)):
                if through is not None and number > through:
                    raise Stopped
                train_stage(work, number, on_step)
            gather(work)
            finish(work)
            drop_caches(caches_of(work.run, work.placement))
        except Stopped:
            work.writer.close("stopped")
    return run


def train_stage(work: Work, number: int, on_step: OnStep | None) -> None:
    """Train one stage from wherever its counters stand to its end."""
    exp, stage = work.exp, work.stages[number]
    trainee = enter_stage(work, number)
    note_beginning(work, number)
    setting = setting_for(work, trainee)
    steps = work.steps_of(number)
    with closing(inputs(work, number)) as batches:
        for noisy in batches:
            moves = moves_of(work, trainee)
            began = time.perf_counter()
            rate = stage_lr(exp.optim, stage, work.at.step, steps)
            now = setting.on(path_at(stage, exp.seed, work.at.total_steps))
            with measured(work, trainee, noisy), refusals_named(work, number):
                numbers = training_step(work.rack, noisy, now, trainee, rate)
            work.count(number, noisy, numbers, rate, time.perf_counter() - began)
            if on_step is not None:
                on_step(work, numbers)
            watch(work, trainee, numbers, moves)
            take_orders(work)
            if work.at.step == steps:
                break  # the border saves, whatever is asked
            if work.stop_requested or work.paused or work.checkpoint_due():
                save_work(work, trainee)
            wait_while_paused(work)
            if work.stop_requested:
                raise Stopped
    leave_stage(work, trainee)
    keep_stage(work)
    wait_while_paused(work)
    if work.stop_requested:
        raise Stopped


@contextmanager
def in_queue(work: Work) -> Iterator[None]:
    """Let launched runs wait for this one, and say which ones share its device."""
    with holding(work.device.type, work.run.path) as others:
        if others:
            names = [Path(other.run).name for other in others]
            work.writer.event("device_shared", device=work.device.type, runs=names)
        yield


@contextmanager
def refusals_named(work: Work, number: int) -> Iterator[None]:
    """Say of which step it is that loss or gradient are no numbers; it ends the run."""
    try:
        yield
    except FloatingPointError as error:
        taken = "Part of the step" if isinstance(error, PartlyTaken) else "No step"
        raise TrainingError(
            f"step {work.at.total_steps + 1} (stage {number}, {work.stages[number].name}): {error}."
            f" {taken} was taken and the last checkpoint is intact; with another optim.lr or "
            "optim.clip it is another run"
        ) from error


def inputs(work: Work, number: int) -> Generator[Corrupted]:
    """The batches that are left of a stage, made ahead of the step in a thread.

    Where the trunk is cached they come with what it gives; a damaged piece of it is made anew.
    """
    cache = open_caches(work, number) if is_cached(work, number) else None
    while True:
        try:
            with prefetch(noisy_batches(work, number, cache)) as batches:
                yield from batches
            return
        except DamagedShard as damage:
            assert cache is not None
            mend(work, number, rows_trained(work, number), cache, damage)


def noisy_batches(work: Work, number: int, cache: TrunkCache | None) -> Iterator[Corrupted]:
    """The corrupted batches that are left of a stage; a pure function of the counters."""
    steps, size = range(work.at.step, work.steps_of(number)), work.exp.optim.batch
    noisy: Iterator[Corrupted] = (work.noisy_batch(number, step) for step in steps)
    if cache is not None:
        noisy = with_rows(noisy, cache, steps.start * size, size, len(steps))
    for batch in noisy:
        yield batch.pinned() if work.device.type == "cuda" else batch


def with_rows(
    noisy: Iterator[Corrupted], cache: TrunkCache, first: int, size: int, count: int
) -> Iterator[Corrupted]:
    """Batches with what the trunk gives for them, read ahead from row `first` on."""
    dtype = torch.float32 if cache.layout.dtype == "float32" else torch.bfloat16  # both exact
    with cache.batches(first, size, count, dtype=dtype) as rows:
        for batch, x_BTD in zip(noisy, rows, strict=True):
            yield replace(batch, trunk_BTD=x_BTD)


@contextmanager
def stop_signals(work: Work) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {int(signum): signal.getsignal(signum) for signum in signals}

    def ask(signum: int, frame: Any) -> None:
        work.stop_requested = True
        signal.signal(signum, before[signum])

    for signum in signals:
        signal.signal(signum, ask)
    try:
        yield
    finally:
        for signum in signals:
            signal.signal(signum, before[int(signum)])
