"""A run while it is being carried out: what is open, and how far it has come.

It is opened in `opening.py`, written down in `saved.py` and read back in `restoring.py`; the loop
over its steps is in `run.py`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from stackwise.budget import steps_of
from stackwise.by_stage import in_blocks, step_tokens
from stackwise.config import Experiment, Placement
from stackwise.data.batches import Batch, batch_at, part_of, samples_per_epoch
from stackwise.data.dataset import Dataset
from stackwise.data.heldout import some_windows
from stackwise.data.mixing import mixed_batch, read_of
from stackwise.memory.flops import Flops, stage_flops_per_token, vocab_size
from stackwise.memory.meter import Meter
from stackwise.model.rack import Rack
from stackwise.model.shape import stack_ids
from stackwise.objective import Corrupted, Corruption, corrupt
from stackwise.probe import fixed_draws
from stackwise.pulse import beat
from stackwise.runs import Run, RunWriter
from stackwise.stage import Stage
from stackwise.training.changed import begun_with
from stackwise.training.ownership import identity_of
from stackwise.training.step import StepNumbers
from stackwise.training.trained import State
from stackwise.trunk.shelf import Shelf

if TYPE_CHECKING:
    from stackwise.interop.kept import Beginning
    from stackwise.mirrors.mirror import Mirror
    from stackwise.training.pacer import Pacer

AT_THE_END = 1.0  # where schedules over progress stand at every look


class Stopped(Exception):
    """The user asked a run to stop; its state is saved."""


@dataclass
class Counters:
    """How far a run has come; written into every checkpoint.

    Attributes:
        stage: The stage in hand.
        step: Optimizer steps done in it.
        total_steps: Optimizer steps done in all.
        tokens: Tokens read.
        flops: FLOPs spent on training, the head at the positions that really counted.
        probe_flops: FLOPs spent on held-out measurements, counted apart.
        seconds: Time in training steps.
        probe_seconds: Time in held-out measurements between them.
        best: Lowest held-out loss of the last stage, nats per token.
        updates: Updates of the moving average in this stage.
        peak_bytes: Largest memory above the baseline so far.
        decisions: Of the clock that have had their effect, where the budget is a time.
        worked: Seconds that the run's process has been at work, there.
    """

    stage: int = 0
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    probe_flops: float = 0.0
    seconds: float = 0.0
    probe_seconds: float = 0.0
    best: float | None = None
    updates: int = 0
    peak_bytes: int | None = None
    decisions: int = 0
    worked: float = 0.0


@dataclass
class Work:
    """Everything that a run holds open.

    Attributes:
        on_disk: Parts whose file in the last checkpoint is right.
        packed: Stacks that are frozen to the format of `precision.frozen`.
        lent: Stacks whose matrices are read as they are needed.
        empty: Stacks that are on disk, and not loaded yet.
        adapters: A and B of the stacks that carry an adapter, while it is off.
        merged: What adapters add to the weights of stacks that train from now on, until masters
            have been read.
        stop_requested: Whether it is to end after the step in hand, saved.
        paused: Whether it is to wait after the step in hand.
        obeyed: The number of the last order that was taken (`stackwise/runs/control.py`).
        mirror: What copies each checkpoint elsewhere, if anything does.
        pacer: Its clock, where its budget is a time.
    """

    run: Run
    exp: Experiment
    placement: Placement
    stages: tuple[Stage, ...]
    dataset: Dataset
    device: torch.device
    rack: Rack
    writer: RunWriter
    meter: Meter
    shelf: Shelf | None = None
    pacer: Pacer | None = None
    at: Counters = field(default_factory=Counters)
    on_disk: set[str] = field(default_factory=set)
    packed: set[str] = field(default_factory=set)
    lent: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)
    adapters: State = field(default_factory=dict)
    merged: State = field(default_factory=dict)
    stop_requested: bool = False
    paused: bool = False
    obeyed: int = 0
    mirror: Mirror | None = None
    saved_at: float = field(default_factory=time.monotonic)

    @cached_property
    def costs(self) -> tuple[Flops, ...]:
        """FLOPs per token of each stage."""
        return tuple(stage_flops_per_token(self.exp, stage) for stage in self.stages)

    def ask_to_stop(self) -> None:
        """End it after the step in hand, saved."""
        self.stop_requested = True

    def go_by(self, stages: tuple[Stage, ...]) -> None:
        """Execute these stages from here on; only what is left of them differs."""
        self.stages = stages
        for known in ("costs", "total_steps"):
            self.__dict__.pop(known, None)

    def steps_of(self, number: int) -> int:
        """Optimizer steps of a stage."""
        return steps_of(self.exp, self.stages[number])

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(map(self.steps_of, range(len(self.stages))))

    def length_of(self, number: int) -> int:
        """Tokens per sample in a stage."""
        return self.stages[number].seq_len or self.exp.data.seq_len

    def parts_in(self, number: int) -> int:
        """Parts that a stage cuts each sample of `data.seq_len` tokens into."""
        return self.exp.data.seq_len // self.length_of(number)

    def samples_in(self, number: int) -> int:
        """Samples of `data.seq_len` tokens that a stage reads, or part of: whole batches."""
        return -(-self.steps_of(number) // self.parts_in(number)) * self.exp.optim.batch

    def samples_before(self, number: int) -> int:
        """Samples that the stages before stage `number` read."""
        return sum(map(self.samples_in, range(number)))

    def tokens_before(self, number: int) -> int:
        """Tokens that the stages before stage `number` read."""
        return sum(self.steps_of(i) * step_tokens(self.exp, self.stages[i]) for i in range(number))

    def weights_in(self, number: int) -> tuple[float, ...]:
        """Weights of the corpora of a mixture in a stage: its own, the mixture's, or by length."""
        sizes = tuple(len(self.dataset.part_rows(i)) for i in range(len(self.dataset.parts)))
        usual: tuple[float, ...] | None = getattr(self.exp.data.corpus, "weights", None)
        return self.stages[number].weights or usual or sizes

    def read_before(self, number: int) -> list[int]:
        """Samples that the stages before stage `number` read of each corpus of a mixture."""
        if not self.dataset.parts:
            return []
        read = [read_of(self.weights_in(i), self.samples_in(i)) for i in range(number)]
        return [sum(int(n[part]) for n in read) for part in range(len(self.dataset.parts))]

    def first_sample(self, number: int, step: int) -> int:
        """The number of a step's first sample in the endless order of `batch_at`."""
        size = self.exp.optim.batch
        first = 0 if self.exp.data.restart else self.samples_before(number)
        first += step // self.parts_in(number) * size
        period = self.exp.data.distinct_epochs
        return first if period is None else first % (period * self.epoch_samples)

    @cached_property
    def model(self) -> Beginning | None:
        """What new parts begin with, if not at random.

        Raises:
            CheckpointError, ExperimentError: As `begun_with`.
            Changed: If it is no longer the model that the run began with.
        """
        return begun_with(self.run, self.placement)

    def needs_model(self) -> bool:
        """Whether something is still to begin with the weights of the model that it starts from."""
        if self.exp.start is None:
            return False
        left = self.stages[self.at.stage + (self.at.step > 0) :]
        new = any(entry.init == "random" for stage in left for entry in stage.new or ())
        return new or not {"embedding", "head"} <= self.on_disk

    @cached_property
    def identity(self) -> dict[str, str | None]:
        """What the run is known by; stands in each of its checkpoints."""
        return identity_of(self.run)

    @cached_property
    def epoch_samples(self) -> int:
        """Samples of an epoch."""
        return samples_per_epoch(self.dataset, self.exp.optim.batch)

    @property
    def total_samples(self) -> int:
        """Samples of the whole run, epochs included."""
        return self.samples_before(len(self.stages))

    def clean_batch(self, number: int, step: int) -> Batch:
        """The batch of a step before it is corrupted."""
        exp, size, parts = self.exp, self.exp.optim.batch, self.parts_in(number)
        first = self.first_sample(number, step)
        if self.dataset.parts:
            firsts = self.read_before(0 if exp.data.restart else number)
            batch = mixed_batch(
                self.dataset,
                self.weights_in(number),
                firsts,
                first=step // parts * size,
                place=first,
                batch=size,
                seed=exp.seed,
            )
        else:
            batch = batch_at(self.dataset, first, size, exp.seed)
        return part_of(batch, step % parts, parts, self.length_of(number))

    def note_peak(self) -> None:
        """Take the memory peak since the last look into account."""
        self.meter.note()
        if self.meter.peak is not None:
            self.at.peak_bytes = max(self.meter.peak, self.at.peak_bytes or 0)

    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is older than the placement allows."""
        return time.monotonic() - self.saved_at >= self.placement.checkpoint_seconds

    def corruption(self, number: int, band: tuple[float, float] | None = None) -> Corruption:
        """How the tokens of a stage are corrupted, in its own noise band or the one given."""
        exp = self.exp
        return Corruption(
            objective=in_blocks(exp, self.stages[number]).objective,
            vocab=vocab_size(exp),
            batch_size=exp.optim.batch,
            seed=exp.seed,
            schedule=exp.masking.schedule,
            sampling=exp.masking.sampling,
            band=band or self.stages[number].band,
            bell=exp.masking.bell,
        )

    def noisy_batch(self, number: int, step: int) -> Corrupted:
        """The corrupted batch of a step; a pure function of stage and step."""
        read = self.tokens_before(number) + step * step_tokens(self.exp, self.stages[number])
        progress = read / self.tokens_before(len(self.stages))
        return corrupt(self.corruption(number), self.clean_batch(number, step), progress=progress)

    def heldout(self, number: int) -> Corrupted:
        """The held-out windows of a look under a stage's noise, the same at every look.

        A schedule over progress stands at its end, or the easiest masks would make the best
        weights.
        """
        windows_NT, _ = some_windows(self.dataset, self.exp.eval.windows)
        return fixed_draws(self.corruption(number), windows_NT, progress=AT_THE_END)

    def count(
        self, number: int, noisy: Corrupted, numbers: StepNumbers, rate: float, seconds: float
    ) -> None:
        """Move the counters over one step and write its row of metrics."""
        cost, at, norms = self.costs[number], self.at, numbers.block_norms
        tokens = noisy.positions
        body = (cost.total - cost.head) * tokens
        beat()
        at.step += 1
        at.total_steps += 1
        at.tokens += tokens
        at.flops += body + cost.head_per_position * numbers.counted
        at.seconds += seconds
        self.writer.metric(
            {
                "step": at.total_steps,
                "stage": number,
                "stage_step": at.step,
                "tokens": at.tokens,
                "flops": at.flops,
                "loss": numbers.loss,
                "lr": rate,
                "grad_norm": numbers.grad_norm,
                "masked_frac": numbers.counted / tokens,
                "seconds": at.seconds,
                "embedding_grad_norm": norms.get("embedding", math.nan),
                "head_grad_norm": norms.get("head", math.nan),
                "block_grad_norms": [norms.get(name, math.nan) for name in self.block_names()],
            }
        )
        self.writer.status(
            stage=number,
            stages=len(self.stages),
            name=self.stages[number].name,
            step=at.total_steps,
            loss=numbers.loss,
            seconds_left=self.seconds_left(),
            step_seconds=self.at.seconds / self.at.total_steps,
        )

    def block_names(self) -> list[str]:
        """The blocks of the whole rack, `s0.0`, ..., in the order of `block_grad_norms`."""
        each = range(self.exp.rack.blocks_per_stack)
        return [f"{stack}.{i}" for stack in stack_ids(self.exp.rack) for i in each]

    def seconds_left(self) -> float:
        """Time to the end of the run, by the FLOPs that are left at the rate so far.

        Where the budget is a time, what is left of that.
        """
        if self.pacer is not None:
            return max(0.0, self.pacer.pace.seconds - self.pacer.clock.seconds())
        pairs = zip(self.stages, self.costs, strict=True)
        planned = sum((stage.tokens or 0) * cost.total for stage, cost in pairs)
        rate = self.at.flops / self.at.seconds if self.at.seconds else math.nan
        return max(0.0, planned - self.at.flops) / rate
