"""The stepper: a stage that stands still between any two phases of any of its steps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Self

import torch

from stackwise.config import Experiment, Placement
from stackwise.errors import ExperimentError
from stackwise.model.workspace import workspace
from stackwise.runs import Run
from stackwise.stage import Stage
from stackwise.stepping.beginning import (
    Beginning,
    beginning_of,
    experiment_of,
    placement_of,
    plainly,
    put_at,
    said_of,
    scratch_run,
    source_run,
)
from stackwise.stepping.phase import Phase
from stackwise.stepping.phases import phases_of_step
from stackwise.training.borders import enter_stage, leave_stage, setting_for
from stackwise.training.kept_stages import folder_of, keep_stage
from stackwise.training.opening import open_work
from stackwise.training.picking import path_at
from stackwise.training.rates import stage_lr
from stackwise.training.refusing import refusals_named
from stackwise.training.start import stages_of, threads_of
from stackwise.training.step import StepNumbers, Trainee, micro_loss, training_step

if TYPE_CHECKING:
    from stackwise.data.tokenizer import Tokenizer
    from stackwise.model.rack import Rack
    from stackwise.training.work import Work

OnLead = Callable[[int, int], Any]


class Stepper:
    """A run's own training steps, carried out one phase at a time.

    Iterating it gives every phase until the stage ends. Weights move as in `sw.train`, to the last
    bit, unless a note says otherwise. Use it as a context, or close it: it works in a temporary
    folder, and in the memory that a training step takes. It may be used from any thread, by one at
    a time.

    Args:
        source: What is looked at: a run, an experiment, or a preset's name. A run's folder is read
            only.
        stage: The stage to stand at the start of.
        placement: How steps are carried out: device, threads, micro-batches, checkpointing, where
            the data lies. None for the run's own, or the usual one. The trunk is always computed,
            and nothing compiled.
        seed: Another seed than the experiment's, with which nothing is read from the run; None for
            its own.
        lead_steps: How many steps earlier stages are trained for at most, where no run has kept
            their ends; None for all of them.
        on_lead: Called after each such step with their number so far and in all; what it raises
            ends the attempt.
        keeper: Another run that may have kept the ends of earlier stages, which are the same.

    Attributes:
        exp: The experiment.
        stages: All stages.
        number: The stage that it stands in.

    Raises:
        ExperimentError: If there is no such stage, or it cannot be carried out here.
        DataError: If the corpus cannot be read.
        TrainingError: If a loss before the stage is no number.
    """

    number: int

    def __init__(
        self,
        source: Run | Experiment | str,
        stage: int = 0,
        placement: Placement | None = None,
        *,
        seed: int | None = None,
        lead_steps: int | None = None,
        on_lead: OnLead | None = None,
        keeper: Run | None = None,
    ) -> None:
        if lead_steps is not None and lead_steps < 0:
            raise ExperimentError(f"lead_steps: {lead_steps} must be 0 or more")
        whole = experiment_of(source)
        exp = whole if seed is None else whole.replace(seed=seed)
        self.placement, self._notes = plainly(placement or placement_of(source))
        self._folder = tempfile.TemporaryDirectory(prefix="stackwise-stepping-")
        self._open = ExitStack()
        self._steps: Iterator[Phase] | None = None
        try:
            self._run = scratch_run(source, exp, self.placement, Path(self._folder.name))
            self.exp, self.stages = self._run.experiment, stages_of(self._run)
            looked_at = source_run(source)
            own = looked_at is not None and exp == whole and looked_at.path.exists()
            others = [looked_at if own else None, keeper]
            self._keepers = [self._run, *(run for run in others if run is not None)]
            self.begin(stage, lead_steps=lead_steps, on_lead=on_lead)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Phase]:
        return self

    def __next__(self) -> Phase:
        if self._steps is None:
            if self.finished:
                raise StopIteration
            self._steps = phases_of_step(self._work, self._trainee, self._setting)
        with (
            threads_of(self.placement),
            workspace(small=True),
            refusals_named(self._work, self._trainee, None),
        ):
            phase = next(self._steps)
        if phase.is_last:
            self._steps = None
        return phase

    @property
    def stage(self) -> Stage:
        """The stage that it stands in."""
        return self.stages[self.number]

    @property
    def step(self) -> int:
        """Steps of the stage that are done."""
        return self._work.at.step

    @property
    def steps(self) -> int:
        """Steps of the stage."""
        return self._work.steps_of(self.number)

    @property
    def finished(self) -> bool:
        """Whether the stage has no step left."""
        return self.step >= self.steps

    @property
    def rack(self) -> Rack:
        """The weights as they are now; not a copy."""
        return self._work.rack

    @property
    def tokenizer(self) -> Tokenizer:
        """That of the data."""
        return self._work.dataset.tokenizer

    @property
    def notes(self) -> tuple[str, ...]:
        """In what these steps are not those of the run, and where they begin; in sentences."""
        return (*self._notes, *([self._said] if self._said else []))

    def beginning(self, stage: int) -> Beginning:
        """How the start of a stage would be come by, and what that takes."""
        return beginning_of(self.exp, self.stages, stage, self._keepers)

    def next_step(self) -> list[Phase]:
        """The phases that are left of the step in hand, or all of the next one; none at the end."""
        found: list[Phase] = []
        for phase in self:
            found.append(phase)
            if phase.is_last:
                break
        return found

    def take(self, step: int, rate: float) -> StepNumbers:
        """A whole step at any learning rate, on the batch of any step; it counts as none.

        Raises:
            FloatingPointError: If loss or gradient are no numbers.
        """
        work = self._work
        with threads_of(self.placement), workspace(small=True):
            noisy = work.noisy_batch(self.number, step)
            return training_step(work.rack, noisy, self._setting, self._trainee, rate)

    @torch.no_grad()
    def loss_of(self, step: int) -> tuple[float, int]:
        """The loss of the batch of any step as the weights are, and the positions that count."""
        work, setting = self._work, self._setting
        noisy = work.noisy_batch(self.number, step)
        positions = noisy.positions
        with threads_of(self.placement), workspace(small=True):
            micros = noisy.split(setting.micro_batch or len(noisy.input_BT))
            losses = [float(micro_loss(work.rack, each, setting, positions)) for each in micros]
        return sum(losses), int(noisy.counted_BT.sum())

    def reset(self) -> None:
        """Stand at the start of the stage again, as if no step had been taken."""
        self.begin(self.number)

    def begin(
        self, stage: int, *, lead_steps: int | None = None, on_lead: OnLead | None = None
    ) -> None:
        """Stand at the start of a stage.

        From the end of the stage before it, training just goes on. Arguments and errors as for the
        class.
        """
        beginning = self.beginning(stage)
        goes_on = self._is_open and self.finished and stage == self.number + 1
        with threads_of(self.placement), workspace(small=True):
            if goes_on:
                self._leave()
                self._said = ""
            else:
                self._shut()
                put_at(self._run, beginning)
                self._work = self._opened()
                self._lead(beginning, lead_steps, on_lead)
            self._enter(stage)

    def close(self) -> None:
        """Give back memory and the temporary folder."""
        self._shut()
        self._folder.cleanup()

    @property
    def _is_open(self) -> bool:
        return hasattr(self, "_work")

    def _opened(self) -> Work:
        return self._open.enter_context(open_work(self._run))

    def _shut(self) -> None:
        """Let go of everything but the folder; threads are as many as before."""
        self._steps = None
        if not self._is_open:
            return
        threads = torch.get_num_threads()
        if hasattr(self, "_trainee") and self._trainee.in_backward is not None:
            self._trainee.in_backward.close()
        del self._work
        self._open.close()
        torch.set_num_threads(threads)

    def _enter(self, number: int) -> None:
        """Set up what trains in a stage, and how."""
        work = self._work
        self.number, self._steps = number, None
        self._trainee: Trainee = enter_stage(work, number)
        self._setting = setting_for(work, self._trainee)

    def _leave(self) -> None:
        """End a stage as training does, and keep its end here in the place of an older one."""
        rmtree(folder_of(self._run.path, self.number), ignore_errors=True)
        leave_stage(self._work, self._trainee)
        keep_stage(self._work)

    def _lead(self, beginning: Beginning, most: int | None, on_lead: OnLead | None) -> None:
        """Train the stages before, without a look at anything."""
        work, numbers = self._work, range(beginning.first, beginning.stage)
        counts = [
            work.steps_of(n) if most is None else min(most, work.steps_of(n)) for n in numbers
        ]
        done, whole = 0, sum(counts)
        for number, count in zip(numbers, counts, strict=True):
            self._enter(number)
            for step in range(count):
                rate = stage_lr(self.exp.optim, self.stages[number], step, work.steps_of(number))
                noisy = work.noisy_batch(number, step)
                path = path_at(self.stages[number], self.exp.seed, work.at.total_steps)
                with refusals_named(work, self._trainee, noisy):
                    training_step(work.rack, noisy, self._setting.on(path), self._trainee, rate)
                work.at.step, done = work.at.step + 1, done + 1
                work.at.total_steps += 1
                if on_lead is not None:
                    on_lead(done, whole)
            self._leave()
        self._said = said_of(beginning, whole)


def steps_of(
    source: Run | Experiment | str,
    stage: int = 0,
    step: int = 0,
    placement: Placement | None = None,
) -> Iterator[Phase]:
    """The phases of a stage's steps, one after the other, from some step on.

    Args:
        source: A run, an experiment, or a preset's name.
        stage: The stage.
        step: The first step that is told; those before it are taken, too.
        placement: How they are carried out, as for `Stepper`.

    Raises:
        ExperimentError: If there is no such stage or step; else as `Stepper`.
    """
    with Stepper(source, stage, placement) as stepper:
        if not 0 <= step < stepper.steps:
            raise ExperimentError(
                f"step: {step} is no step of stage {stage}; there are 0 to {stepper.steps - 1}"
            )
        yield from (phase for phase in stepper if phase.step >= step)
