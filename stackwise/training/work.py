"""A run while it is being carried out: what is open, and how far it has come.

`open_work` brings a run folder to life, from its last checkpoint if there is one; `save_work`
writes one. The loop that uses them is in `run.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from stackwise.atomic import write_text
from stackwise.config import Experiment, Placement
from stackwise.data.dataset import Dataset
from stackwise.jsontext import dumps
from stackwise.memory.bytes import plan_rows
from stackwise.memory.flops import Flops, stage_flops_per_token, vocab_size
from stackwise.memory.meter import Meter
from stackwise.model.rack import Rack
from stackwise.model.shape import stack_ids
from stackwise.objective import Corrupted, Corruption
from stackwise.runs import Run, RunWriter
from stackwise.stage import Stage, paths_so_far
from stackwise.training.checkpoint import MANIFEST, read_manifest, read_part, save
from stackwise.training.optim import State, optimizer_state
from stackwise.training.start import data_of, device_of, threads_of
from stackwise.training.step import StepNumbers, Trainee

RACK, BEST = "rack", "best"
MOMENTS, AVERAGE = "optimizer", "average"


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
        best: Lowest held-out bits per byte of the last stage.
        updates: Updates of the moving average in this stage.
        peak_bytes: Largest memory above the baseline so far.
    """

    stage: int = 0
    step: int = 0
    total_steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    probe_flops: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    updates: int = 0
    peak_bytes: int | None = None


@dataclass
class Work:
    """Everything that a run holds open."""

    run: Run
    exp: Experiment
    placement: Placement
    stages: tuple[Stage, ...]
    dataset: Dataset
    device: torch.device
    rack: Rack
    writer: RunWriter
    meter: Meter
    at: Counters = field(default_factory=Counters)
    restored: dict[str, State] = field(default_factory=dict)
    saved_parts: set[str] = field(default_factory=set)
    stop_requested: bool = False
    stage_peak: int | None = None
    saved_at: float = field(default_factory=time.monotonic)

    @cached_property
    def costs(self) -> tuple[Flops, ...]:
        """FLOPs per token of each stage."""
        return tuple(stage_flops_per_token(self.exp, stage) for stage in self.stages)

    def steps_of(self, number: int) -> int:
        """Optimizer steps of a stage."""
        tokens = self.stages[number].tokens or 0
        return tokens // (self.exp.optim.batch * self.exp.data.seq_len)

    def first_sample(self, number: int) -> int:
        """The global number of a stage's first sample."""
        return sum(self.steps_of(i) for i in range(number)) * self.exp.optim.batch

    @property
    def total_samples(self) -> int:
        """Samples of the whole run, epochs included."""
        return self.first_sample(len(self.stages))

    def note_peak(self) -> None:
        """Take the memory peak since the last look into account."""
        peak = self.meter.peak_bytes()
        if peak is not None:
            self.stage_peak = max(peak, self.stage_peak or 0)
            self.at.peak_bytes = max(peak, self.at.peak_bytes or 0)

    def checkpoint_due(self) -> bool:
        """Whether the last checkpoint is older than the placement allows."""
        return time.monotonic() - self.saved_at >= self.placement.checkpoint_seconds

    def corruption(self, number: int, band: tuple[float, float] | None = None) -> Corruption:
        """How the tokens of a stage are corrupted, in its own noise band or the one given."""
        exp = self.exp
        return Corruption(
            objective=exp.objective,
            vocab=vocab_size(exp),
            batch_size=exp.optim.batch,
            seed=exp.seed,
            schedule=exp.masking.schedule,
            sampling=exp.masking.sampling,
            band=band or self.stages[number].band,
        )

    def count(
        self, number: int, noisy: Corrupted, numbers: StepNumbers, rate: float, seconds: float
    ) -> None:
        """Move the counters over one step and write its row of metrics."""
        cost, at, norms = self.costs[number], self.at, numbers.block_norms
        tokens = noisy.input_BT.numel()
        body = (cost.total - cost.head) * tokens
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
        )

    def block_names(self) -> list[str]:
        """The blocks of the whole rack, `s0.0`, ..., in the order of `block_grad_norms`."""
        each = range(self.exp.rack.blocks_per_stack)
        return [f"{stack}.{i}" for stack in stack_ids(self.exp.rack) for i in each]

    def seconds_left(self) -> float:
        """Time to the end of the run, by the FLOPs that are left at the rate so far."""
        pairs = zip(self.stages, self.costs, strict=True)
        planned = sum((stage.tokens or 0) * cost.total for stage, cost in pairs)
        rate = self.at.flops / self.at.seconds if self.at.seconds else math.nan
        return max(0.0, planned - self.at.flops) / rate


@contextmanager
def open_work(run: Run, placement: Placement | None = None) -> Iterator[Work]:
    """Bring a run folder to life, from its last checkpoint or from nothing.

    Args:
        run: The run.
        placement: How to carry it out from here on, its folders seen from the run's; None for the
            one in the folder.

    Raises:
        ExperimentError: If the placement names a device that is not here.
        RunBusy: If another process is training it.
        TrainingError: If the corpus is no longer the one that the run began with.
        CheckpointError: If its checkpoint is damaged.
    """
    exp = run.experiment
    before = Placement.load(run.path / "placement.yaml")
    placement = placement or before
    stages = tuple(Stage.model_validate(value) for value in run.stages())
    device = device_of(placement)
    dataset = data_of(run, placement)
    with threads_of(placement), RunWriter(run.path) as writer:
        writer.event("opened", device=name_of(device), threads=torch.get_num_threads())
        meter = Meter(device)
        if meter.blind is not None:
            writer.event("peak_unknown", why=meter.blind)
        rack = Rack(exp.rack, exp.attention, vocab_size(exp), stacks=(), seed=exp.seed).to(device)
        work = Work(run, exp, placement, stages, dataset, device, rack, writer, meter)
        if (run.path / RACK / MANIFEST).exists():
            restore(work)
        if placement != before:
            write_placement(work, before)
        yield work


def name_of(device: torch.device) -> str:
    """A device as people call it."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def write_placement(work: Work, before: Placement) -> None:
    """Put down that the run is carried out otherwise from here on, and what that will take."""
    old, new = before.model_dump(mode="json"), work.placement.model_dump(mode="json")
    write_text(work.run.path / "placement.yaml", work.placement.to_yaml())
    done = work.run.plan()[: work.at.stage]
    rows = plan_rows(work.exp, work.placement, work.stages)[work.at.stage :]
    write_text(work.run.path / "plan.json", dumps([*done, *rows], indent=1))
    changed = {key: [old[key], new[key]] for key in new if new[key] != old[key]}
    work.writer.event("placement_changed", changed=changed)


def save_work(work: Work, trainee: Trainee, *, moments: bool = True, average: bool = True) -> None:
    """Write a checkpoint of the rack and of what resuming needs.

    Args:
        work: The run.
        trainee: What trains now; the other parts' files are still right.
        moments: Keep the optimizer's state.
        average: Keep the moving average.
    """
    trained = {part for part, _ in trainee.named}
    parts = {name: dict(module.state_dict()) for name, module in work.rack.parts().items()}
    unchanged = {name for name in parts if name not in trained and name in work.saved_parts}
    work.saved_parts = set(parts)
    if moments:
        for part, tensors in optimizer_state(trainee.optimizer, trainee.named).items():
            parts[f"{part}.{MOMENTS}"] = tensors
    if average and trainee.average is not None:
        work.at.updates = trainee.average.updates
        for part, tensors in trainee.average.state().items():
            parts[f"{part}.{AVERAGE}"] = tensors
    work.writer.flush()  # no step that a checkpoint stands on may be missing from the metrics
    save(
        work.run.path / RACK,
        parts,
        unchanged=unchanged,
        written_in=trainee.number,
        counters=asdict(work.at),
    )
    work.saved_at = time.monotonic()


def restore(work: Work) -> None:
    """Put a run back to where its last checkpoint was written."""
    folder = work.run.path / RACK
    manifest = read_manifest(folder)
    work.at = Counters(**manifest["counters"])
    fill(work.rack, folder, manifest)
    work.saved_parts = set(work.rack.parts())
    for name in manifest["parts"]:
        part, _, kind = name.partition(".")
        if kind:
            tensors = read_part(folder, manifest, name)
            work.restored.setdefault(kind, {})[part] = {
                key: value.to(work.device) for key, value in tensors.items()
            }
    work.writer.event("resumed", stage=work.at.stage, step=work.at.total_steps)


def fill(rack: Rack, folder: Path, manifest: dict[str, Any], only: set[str] | None = None) -> None:
    """Load the parts of a checkpoint into a rack, adding the stacks that it lacks."""
    names = [name for name in manifest["parts"] if "." not in name]
    for name in names if only is None else sorted(only & set(names)):
        tensors = read_part(folder, manifest, name)
        if name not in rack.parts():
            rack.add(name)
        if name == "head" and "weight" in tensors:
            rack.untie()
        rack.parts()[name].load_state_dict(tensors)


def fill_averages(rack: Rack, folder: Path, manifest: dict[str, Any]) -> None:
    """Put the moving averages of a checkpoint in the place of the weights that they follow."""
    for name in manifest["parts"]:
        part, _, kind = name.partition(".")
        if kind == AVERAGE:
            module = rack.parts()[part]
            module.load_state_dict({**module.state_dict(), **read_part(folder, manifest, name)})


def read_rack(run: Run, *, best: bool = False, raw: bool = False) -> Rack:
    """The model of a run's last checkpoint, or the best one of its last stage.

    What trains is read at its moving average where there is one, unless `raw` weights are wanted.
    Its noise paths are those of the stages that have begun; at a border the next one has not.

    Raises:
        CheckpointError: If there is none yet, or it is damaged.
    """
    exp = run.experiment
    rack = Rack(exp.rack, exp.attention, vocab_size(exp), stacks=(), seed=exp.seed)
    manifest = read_manifest(run.path / RACK)
    fill(rack, run.path / RACK, manifest)
    if not raw:
        fill_averages(rack, run.path / RACK, manifest)
    if best:
        better = read_manifest(run.path / BEST)
        fill(rack, run.path / BEST, better)
    stages = tuple(Stage.model_validate(value) for value in run.stages())
    at = Counters(**manifest["counters"])
    rack.paths = paths_so_far(stages[: at.stage + (at.step > 0)])
    return rack.eval()
