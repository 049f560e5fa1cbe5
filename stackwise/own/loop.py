"""The loop over the stages of a model of the user's own.

The steps are those of `stackwise/training/` without a run folder: what trains is frozen, moved and
released by the same functions. Who calls this is in `train.py`.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from stackwise.config import Experiment
from stackwise.own.batches import Batches, OwnBatch
from stackwise.own.module import OwnModule
from stackwise.own.rack import OwnRack
from stackwise.stage import Stage
from stackwise.training.average import Average
from stackwise.training.checkpoint import save
from stackwise.training.in_backward import InBackward
from stackwise.training.manifest import read_manifest
from stackwise.training.optim import (
    Optimizer,
    carried,
    load_optimizer_state,
    optimizer_state,
    with_copies,
)
from stackwise.training.rates import stage_lr
from stackwise.training.start import TrainingError
from stackwise.training.step import Trainee, backward, refuse_infinite, take_step
from stackwise.training.trained import State, freeze_all_but

COLUMNS = ["step", "stage", "name", "loss", "lr", "grad_norm", "seconds"]


@dataclass
class OwnWork:
    """A training under way.

    Attributes:
        own: The model, as embedding, stacks and head.
        exp: What decides the numbers.
        stages: What is carried out.
        batches: The user's.
        folder: Where checkpoints go; None for nowhere.
        kept_frozen: Parameters that the user froze; they stay so.
        rows: Metrics so far.
        held: Stacks that were added so far.
        moments: Optimizer state for a stage that keeps it.
        files: Checkpoints so far.
        seconds: Time in training steps.
    """

    own: OwnRack | OwnModule
    exp: Experiment
    stages: tuple[Stage, ...]
    batches: Batches
    folder: Path | None
    kept_frozen: set[nn.Parameter] = field(default_factory=set)
    rows: list[tuple[int, int, str, float, float, float, float]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    moments: State = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    def steps_in(self, stage: Stage) -> int:
        """Optimizer steps of a stage."""
        return (stage.tokens or 0) // (self.exp.optim.batch * self.exp.data.seq_len)

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(self.steps_in(stage) for stage in self.stages)


def train_stage(work: OwnWork, number: int) -> None:
    """Train one stage.

    Raises:
        TrainingError: If anything fails in it; the cause is chained.
    """
    stage = work.stages[number]
    steps = work.steps_in(stage)
    with failures_named(work, number):
        trainee = enter_stage(work, number)
        with closing(trainee.in_backward) if trainee.in_backward is not None else nullcontext():
            for step in range(steps):
                batch = work.batches.take(work.steps)
                began = time.perf_counter()
                rate = stage_lr(work.exp.optim, stage, step, steps)
                loss, norm = one_step(work, trainee, batch, rate)
                work.seconds += time.perf_counter() - began
                done = len(work.rows) + 1
                work.rows.append((done, number, stage.name, loss, rate, norm, work.seconds))
        leave_stage(work, trainee)


def enter_stage(work: OwnWork, number: int) -> Trainee:
    """Add the stage's new stacks, freeze the rest, and set up what trains."""
    stage, optim = work.stages[number], work.exp.optim
    for entry in stage.new or ():
        work.own.add(entry, work.exp.seed)
        work.held.add(entry.stack)
    work.own.enter(stage, work.exp, work.batches.first)
    named = freeze_all_but(work.own.parts(), stage)
    for key in [key for key, parameter in named.items() if parameter in work.kept_frozen]:
        named.pop(key).requires_grad_(False)
    if not named:
        raise ValueError("nothing trains: every parameter of its parts has requires_grad=False")
    rounding, seed = work.exp.precision.rounding, work.exp.seed
    optimizer = Optimizer(
        optim, named, rounding=rounding, seed=seed, stage=number, shape=work.exp.rack
    )
    goes_on = stage.optimizer_state != "reset"
    load_optimizer_state(optimizer, named, with_copies(work.moments, stage), whole=goes_on)
    average = None if optim.ema is None else Average(named, optim.ema, optimizer)
    stepping = InBackward(named, optimizer) if optim.grads == "in_backward" else None
    return Trainee(number, stage, named, optimizer, average, stepping)


def one_step(work: OwnWork, trainee: Trainee, batch: OwnBatch, rate: float) -> tuple[float, float]:
    """One optimizer step on one batch; nothing moves if loss or gradient are not finite.

    Returns:
        Loss, and gradient norm before clipping.
    """
    done = len(work.rows)
    loss = work.own.loss(batch, done, done / work.steps)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        found = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise TypeError(f"the loss is {found}, not a scalar tensor")
    refuse_infinite("loss", value := float(loss.detach()))
    backward(trainee, loss, rate)
    moved = trainee.in_backward is not None and trainee.in_backward.moved
    if not moved and all(parameter.grad is None for parameter in trainee.named.values()):
        raise ValueError("the loss does not depend on anything that trains in this stage")
    norm, _ = take_step(trainee, rate, work.exp.optim.clip)
    return value, norm


def leave_stage(work: OwnWork, trainee: Trainee) -> None:
    """Freeze what the next stage does not train at its average, and write a checkpoint."""
    number = trainee.number
    following = work.stages[number + 1] if number + 1 < len(work.stages) else None
    if trainee.average is not None:
        trainee.average.adopt_what_freezes(following)
    moments = {**work.moments, **optimizer_state(trainee.optimizer, trainee.named)}
    work.moments = carried(moments, work.stages, number)
    if work.folder is not None:
        folder = work.folder / f"stage-{number}"
        parts = {name: apart(tensors) for name, tensors in work.own.state(work.held).items()}
        save(folder, parts, stage=trainee.stage.model_dump(mode="json"), step=len(work.rows))
        entries = read_manifest(folder)["parts"].values()
        work.files += [folder / entry["file"] for entry in entries]


def apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with a copy in place of what shares memory, which safetensors does not hold."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        out[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return out


@contextmanager
def failures_named(work: OwnWork, number: int) -> Iterator[None]:
    """Say in which stage and step something failed."""
    try:
        yield
    except Exception as error:
        what = traceback.format_exception_only(error)[-1].strip()
        raise TrainingError(
            f"stage {number} ({work.stages[number].name}), step {len(work.rows) + 1}: {what}"
        ) from error


@contextmanager
def left_whole(work: OwnWork) -> Iterator[None]:
    """Afterwards blocks, modes and `requires_grad` are as before, and gradients are gone."""
    model = work.own.model
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    modes = {module: module.training for module in model.modules()}
    work.kept_frozen = {parameter for parameter, flag in flags.items() if not flag}
    model.zero_grad()
    try:
        yield
    finally:
        work.own.restore()
        for parameter in model.parameters():
            parameter.requires_grad_(flags.get(parameter, True))
        for module in model.modules():
            module.training = modes.get(module, modes[model])
        model.zero_grad()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's own generators follow from the seed (dropout, a DataLoader's order)."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
