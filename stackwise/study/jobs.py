"""The runs of a study as they are carried out: one after the other in this process.

How they are carried out in processes of their own is in `pool.py`. Either way a run that is
finished is not run again, one that stopped goes on, and one that failed does not end the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stackwise.alerts import alerting
from stackwise.config import Experiment, Placement
from stackwise.own_code import CodeFile
from stackwise.runs import Run
from stackwise.study.arms import Arm
from stackwise.study.sharing import Source, begun, sources_of
from stackwise.training.run import OnStep, Stopped, execute
from stackwise.training.start import TrainingError, seen_from, settled

ARM, TUNING = "arm", "tuning"  # the roles of a run, beside the unit that is equal otherwise
OnArm = Callable[[Arm, int], None]


@dataclass(frozen=True)
class Job:
    """A run that a study asks for.

    Attributes:
        arm: Of which arm.
        seed: With which seed.
        role: `arm`; `tuning`, of the learning-rate grid; or the unit that is equal, where it is
            not the study's own.
        rate: The learning rate; None for the arm's own.
    """

    arm: Arm
    seed: int
    role: str = ARM
    rate: float | None = None

    @property
    def experiment(self) -> Experiment:
        """What it trains."""
        exp = self.arm.experiment.replace(seed=self.seed)
        return exp if self.rate is None else exp.replace(optim={"lr": self.rate})

    def __str__(self) -> str:
        rate = f" at optim.lr={self.rate:g}" if self.role == TUNING and self.rate else ""
        equal = "" if self.role in (ARM, TUNING) else f" at equal {self.role}"
        return f"{self.arm.name}, seed {self.seed}{rate}{equal}"


class Done(NamedTuple):
    """What came of a job.

    Attributes:
        job: The job.
        run: Its run.
        error: Why it came to nothing; None if it finished.
    """

    job: Job
    run: Run
    error: str | None = None


@dataclass
class Runs:
    """The folders of the runs of some jobs, made as they are needed.

    Attributes:
        jobs: The jobs.
        placement: How they are carried out.
        sources: From which of the jobs each may branch.
        made: The runs by the place of their job.
        code: The files of code that they carry.
    """

    jobs: Sequence[Job]
    placement: Placement
    sources: list[Source | None]
    made: dict[int, Run]
    code: Sequence[CodeFile] = ()

    @classmethod
    def of(cls, jobs: Sequence[Job], placement: Placement, code: Sequence[CodeFile] = ()) -> Runs:
        """Nothing is made yet."""
        sources = sources_of([job.experiment for job in jobs], placement)
        return cls(jobs, placement, sources, {}, code)

    def begin(self, number: int) -> Run:
        """The run of a job, made if it is not there."""
        source = self.sources[number]
        other = None if source is None else self.made.get(source.number)
        run = begun(
            self.jobs[number].experiment,
            self.placement,
            other,
            0 if source is None else source.stages,
            self.code,
        )
        self.made[number] = run
        return run


def carry_out(
    jobs: Sequence[Job],
    placement: Placement,
    *,
    code: Sequence[CodeFile] = (),
    on_step: OnStep | None = None,
    on_arm: OnArm | None = None,
) -> list[Done]:
    """Carry out jobs in this process, in order.

    Raises:
        Stopped: If the user stopped one; it is saved.
    """
    runs, done = Runs.of(jobs, placement, code), list[Done]()
    for number, job in enumerate(jobs):
        if on_arm is not None:
            on_arm(job.arm, job.seed)
        run, error = runs.begin(number), None
        _, place = settled(job.experiment, placement)
        try:
            with alerting(run, None):
                execute(run, seen_from(run.path, place), on_step=on_step)
        except TrainingError as failure:
            error = str(failure)
        if error is None and run.state != "finished":
            raise Stopped(stopped_text(job))
        done.append(Done(job, run, error))
    return done


def stopped_text(job: Job) -> str:
    """What is said of a study that was stopped in one of its runs."""
    return f"{job.arm.name} stopped and saved; the same study goes on from there"
