"""The runs of a study in processes of their own, a few at a time, on this machine.

Each run is handed to a supervisor of its own, as `sw.launch` does: it executes the stages in its
folder, so that a curriculum from a notebook cell needs no import there, and it says how it ended,
also where the process that trained it was killed. What is here starts them, waits, and stops them
all on Ctrl-C. On a CPU they run side by side; on a card they queue for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import get_num_threads

from stackwise.config import Placement
from stackwise.detached.foreign import check_known_elsewhere
from stackwise.detached.launch import start
from stackwise.errors import ExperimentError, short
from stackwise.own_code import CodeFile
from stackwise.runs import Run
from stackwise.runs.lock import SUPERVISOR, is_held
from stackwise.study.jobs import Done, Job, OnArm, Runs, stopped_text
from stackwise.training.kept_stages import kept_stages
from stackwise.training.run import Stopped
from stackwise.training.start import device_of, seen_from, settled

LOOK_SECONDS = 0.05
Workers = int | Literal["auto"]
Start = Callable[[Run, Placement, bool], object]


def workers_of(workers: Workers, placement: Placement) -> int:
    """How many runs are carried out at a time.

    Args:
        workers: A number; `auto`: on a card one, on a CPU as many as have cores for their threads,
            or as there are cores where the placement names no number of threads.
        placement: How they are carried out.

    Raises:
        ExperimentError: If it is no such number.
    """
    if workers == "auto":
        if device_of(placement).type == "cuda":
            return 1
        return max(1, (os.cpu_count() or 1) // (placement.threads or 1))
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ExperimentError(f"workers: {short(workers)} must be a whole number over 0, or 'auto'")
    return workers


def is_crowded(placement: Placement, workers: int) -> bool:
    """Whether the runs have more threads together than there are cores.

    How many threads a run has decides the last bits of its sums, so that it does not depend on the
    number of workers. Where they are too many, those that wait sleep, which costs little
    (`benchmarks/study_threads.py`); awake they would keep the others from their cores.
    """
    if device_of(placement).type != "cpu":
        return False
    return workers * (placement.threads or get_num_threads()) > (os.cpu_count() or 1)


def launched(run: Run, placement: Placement, queue: bool, *, asleep: bool = False) -> object:
    """Hand a run to a process of its own."""
    return start(run, seen_from(run.path, placement), queue=queue, asleep=asleep)


def carry_out_in_pool(
    jobs: Sequence[Job],
    placement: Placement,
    workers: int,
    *,
    code: Sequence[CodeFile] = (),
    on_arm: OnArm | None = None,
    start: Start | None = None,
) -> list[Done]:
    """Carry out jobs in processes of their own.

    A run that could begin where another's stage ends waits for that stage. One whose process dies
    does not end the others.

    Args:
        jobs: The jobs.
        placement: How they are carried out.
        workers: How many at a time.
        code: The files of code that the runs carry.
        on_arm: Called as each begins.
        start: Hands a run to a process; None for `launched`.

    Raises:
        ExperimentError: If an arm names a kind that only this process knows.
        Stopped: If one was stopped, or Ctrl-C was pressed: then all are, saved.
    """
    for job in jobs:
        check_known_elsewhere(job.experiment, {each.sha256 for each in code})
    start = start or partial(launched, asleep=is_crowded(placement, workers))
    pool = Pool(jobs, placement, on_arm, start, code)
    try:
        while pool.is_busy:
            pool.look()
            while len(pool.live) < workers and (number := pool.ready()) is not None:
                pool.begin(number)
            time.sleep(LOOK_SECONDS if pool.live else 0)
    except KeyboardInterrupt:
        stopped = [pool.jobs[number] for number in pool.live] or [jobs[0]]
        pool.stop()
        raise Stopped(stopped_text(stopped[0])) from None
    except BaseException:
        pool.stop()
        raise
    return [pool.done[number] for number in range(len(jobs))]


class Pool:
    """Jobs that wait, run, or are done.

    Attributes:
        jobs: All of them; below they are known by their places in it.
        waiting: Those that have not begun.
        live: Runs in the hands of a process.
        done: What came of the others.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        placement: Placement,
        on_arm: OnArm | None,
        start: Start,
        code: Sequence[CodeFile] = (),
    ) -> None:
        self.jobs, self.runs = jobs, Runs.of(jobs, placement, code)
        self.placement, self.on_arm, self.start = placement, on_arm, start
        self.waiting = list(range(len(jobs)))
        self.live: dict[int, Run] = {}
        self.done: dict[int, Done] = {}

    @property
    def is_busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.live)

    def ready(self) -> int | None:
        """The first job that waits for nothing; None if there is none."""
        return next((number for number in self.waiting if not self._waits(number)), None)

    def _waits(self, number: int) -> bool:
        """Whether the stage that a job begins after is still being trained."""
        source = self.runs.sources[number]
        if source is None or source.number in self.done:
            return False
        run = self.live.get(source.number)
        return run is None or source.stages - 1 not in kept_stages(run.path)

    def begin(self, number: int) -> None:
        """Make a job's run, and hand it to a process unless it is finished."""
        job = self.jobs[number]
        self.waiting.remove(number)
        if self.on_arm is not None:
            self.on_arm(job.arm, job.seed)
        run = self.runs.begin(number)
        same = [other for other, live in self.live.items() if live.id == run.id]
        if run.state != "finished" and not same:
            _, place = settled(job.experiment, self.placement)
            self.start(run, place, device_of(place).type == "cuda")
        self.live[number] = run

    def look(self) -> None:
        """Take the runs that have ended.

        Raises:
            Stopped: If one of them was stopped.
        """
        for number, run in list(self.live.items()):
            if run.is_live or is_held(run.path, SUPERVISOR):
                continue
            state = run.state
            if state == "stopped":
                raise Stopped(stopped_text(self.jobs[number]))
            del self.live[number]
            error = None if state == "finished" else run.error() or f"it is {state}"
            self.done[number] = Done(self.jobs[number], run, error)

    def stop(self) -> None:
        """Stop what runs, saved, and wait until it has ended."""
        for run in self.live.values():
            run.stop()
        for run in self.live.values():
            run.wait()
