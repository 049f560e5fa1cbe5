"""One training step, on one screen.

    token ids -> corrupt -> trunk (no gradient) -> active stacks -> suffix -> head at the positions
    that count -> loss -> backward -> clip -> optimizer -> average

With `optim.grads=in_backward` the optimizer runs inside backward (`in_backward.py`).
Corruption is in `masking.py` and `objective.py`, the loop over steps in `run.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stackwise.model.direction import start_of
from stackwise.model.rack import Rack
from stackwise.objective import Corrupted
from stackwise.preserving import joint_of
from stackwise.stage import Stage, as_run, parts_trained, trunk_of
from stackwise.training.average import Average
from stackwise.training.holding import Holding
from stackwise.training.in_backward import InBackward
from stackwise.training.layers import Head, Layer, head_of, layers
from stackwise.training.norms import clip_, global_norms
from stackwise.training.optim import Optimizer
from stackwise.training.trained import Named
from stackwise.trunk.border import through


@dataclass(frozen=True)
class Setting:
    """What stays the same over the steps of a stage.

    Attributes:
        trunk: Blocks that run without gradient, stack by stack, single or compiled together.
        border: What each stack of the trunk rounds its output to.
        rest: The blocks after them, active and frozen, in order.
        by_stack: Where each step picks a path of its own: the blocks of each stack, single or
            compiled together.
        head: Final norm, head and loss.
        causal: Attention direction, where a batch does not say that it is read block by block.
        micro_batch: Samples per forward pass; None for all.
        checkpointing: Recompute the blocks of `rest` in backward.
        compute: dtype of matrix products.
        device: Where it computes.
        clip: Bound on the gradient norm.
        holding: Terms beside the loss, of the rack before the stage.
        joint: The layer of `rest` whose input one of them is about.
    """

    trunk: tuple[tuple[Layer, ...], ...]
    border: str
    rest: tuple[Layer, ...]
    head: Head
    causal: bool
    micro_batch: int | None
    checkpointing: bool
    compute: torch.dtype
    device: torch.device
    clip: float | None
    by_stack: Mapping[str, tuple[Layer, ...]] | None = None
    holding: Holding | None = None
    joint: int | None = None

    def on(self, path: Sequence[str]) -> Setting:
        """The same for a step that runs `path` alone."""
        if self.by_stack is None:
            return self
        return replace(self, rest=tuple(layer for s in path for layer in self.by_stack[s]))


@dataclass
class Trainee:
    """What trains in a stage, and what trains it.

    Attributes:
        number: The stage's place in the curriculum.
        stage: The stage.
        named: What trains, by part and tensor name.
        optimizer: Over exactly that.
        average: Its moving average, if the experiment asks for one.
        in_backward: Steps in backward, if the experiment asks for them.
        measured: Bytes by category in the stage's first step; None before.
        holding: What it is held to beside its loss.
    """

    number: int
    stage: Stage
    named: Named
    optimizer: Optimizer
    average: Average | None
    in_backward: InBackward | None = None
    measured: dict[str, int | None] | None = None
    holding: Holding | None = None

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients that are held at once."""
        if self.in_backward is not None:
            return self.in_backward.gradient_bytes
        runs = parts_trained(as_run(self.stage))
        return sum(p.nbytes for (part, _), p in self.named.items() if part in runs)


@dataclass(frozen=True)
class StepNumbers:
    """What one step measured.

    Attributes:
        loss: Mean over all positions of the weighted cross-entropy, nats.
        grad_norm: Of everything that trains, before clipping.
        block_norms: The same per block (`s0.1`), embedding and head.
        counted: Positions at which the head was computed.
        preserved: Terms beside the loss, without their weights: `consistency`, `distill`.
    """

    loss: float
    grad_norm: float
    block_norms: dict[str, float]
    counted: int
    preserved: Mapping[str, float] = field(default_factory=dict)


def setting_of(
    rack: Rack,
    stage: Stage,
    *,
    causal: bool,
    micro_batch: int | None,
    checkpointing: bool,
    compute: torch.dtype,
    device: torch.device,
    clip: float | None,
    compiled: bool = False,
    border: str = "float32",
    in_backward: InBackward | None = None,
    holding: Holding | None = None,
) -> Setting:
    """Resolve a stage and its placement into what the step needs."""
    trunk, picks = trunk_of(stage), stage.pick is not None
    by_stack = {
        stack: layers(rack, [stack], compiled=compiled, single=checkpointing)
        for stack in (stage.path if picks else ())
    }
    rest, place = stage.path[len(trunk) :], joint_of(stage) if holding is not None else None
    cut = 0 if place is None else place - len(trunk)  # no compiled stretch goes across it
    first = layers(rack, rest[:cut], compiled=compiled, single=checkpointing)
    return Setting(
        trunk=tuple(layers(rack, [stack], compiled=compiled, single=False) for stack in trunk),
        border=border,
        rest=(*first, *layers(rack, rest[cut:], compiled=compiled, single=checkpointing)),
        head=head_of(
            rack, compiled=compiled, scratch=None if in_backward is None else in_backward.scratch
        ),
        causal=causal,
        micro_batch=micro_batch,
        checkpointing=checkpointing,
        compute=compute,
        device=device,
        clip=clip,
        by_stack=by_stack if picks else None,
        holding=holding,
        joint=None if place is None else len(first),
    )


def training_step(
    rack: Rack,
    noisy: Corrupted,
    setting: Setting,
    trainee: Trainee,
    rate: float,
) -> StepNumbers:
    """Accumulate the gradient of one batch and take one optimizer step.

    Raises:
        FloatingPointError: If loss or gradient norm are not finite; nothing has moved then, unless
            steps are taken in backward and it is a `PartlyTaken`.
    """
    positions = noisy.positions
    if setting.holding is not None:
        setting.holding.take()  # what a loss that was only asked for has left
    loss = torch.zeros((), device=setting.device)
    for micro in noisy.split(setting.micro_batch or len(noisy.input_BT)):
        part = micro_loss(rack, micro, setting, positions)
        backward(trainee, part, rate)
        loss += part.detach()
    refuse_infinite("loss", value := float(loss))
    norm, block_norms = take_step(trainee, rate, setting.clip)
    terms = {} if setting.holding is None else setting.holding.take()
    return StepNumbers(
        loss=terms.pop("loss", value),
        grad_norm=norm,
        block_norms=block_norms,
        counted=int(noisy.counted_BT.sum()),
        preserved=terms,
    )


def backward(trainee: Trainee, loss: Tensor, rate: float) -> None:
    """Work out the gradient of a loss; with steps in backward, what trains moves meanwhile."""
    if trainee.in_backward is not None:
        refuse_infinite("loss", float(loss.detach()))
        trainee.in_backward.begin(rate)
    loss.backward()


def take_step(trainee: Trainee, rate: float, clip: float | None) -> tuple[float, dict[str, float]]:
    """Move what trains along the gradient in hand, if it has not, and its average after it.

    Returns:
        The gradient norm before clipping, of everything and per block.

    Raises:
        FloatingPointError: If it is not finite; nothing has moved then.
    """
    if trainee.in_backward is not None:
        norm, block_norms = trainee.in_backward.norms()
    else:
        norm, block_norms = global_norms(trainee.named)
        refuse_infinite("gradient norm", norm)
        clip_(trainee.named, norm, clip)
        trainee.optimizer.rate = rate
        trainee.optimizer.step()
        trainee.optimizer.zero_grad()
    if trainee.average is not None:
        trainee.average.update()
    return norm, block_norms


def refuse_infinite(what: str, value: float) -> None:
    """Raise FloatingPointError if a number is none."""
    if not math.isfinite(value):
        raise FloatingPointError(f"the {what} is {value}; lower lr, or look at this batch")


def micro_loss(rack: Rack, noisy: Corrupted, setting: Setting, positions: int) -> Tensor:
    """The share of one micro-batch in the loss of a batch of `positions` tokens, nats.

    With what the stage is held to, where it is held to anything.
    """
    noisy, holding = noisy.to(setting.device), setting.holding
    with autocast(setting.device, setting.compute):
        x_BTD = trunk_output(rack, noisy, setting)
        before_ND = None if holding is None else holding.hidden(noisy, x_BTD)
        causal = noisy.direction(setting.causal)
        time_B, joint_BTD = rack.time_of(noisy.input_BT, noisy.level_B), None
        for number, layer in enumerate(setting.rest):
            joint_BTD = x_BTD if number == setting.joint else joint_BTD
            if setting.checkpointing:
                x_BTD = checkpoint(layer, x_BTD, causal=causal, time_B=time_B, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, causal=causal, time_B=time_B)
        return end_loss(setting, noisy, x_BTD, before_ND, joint_BTD, positions)


def end_loss(
    setting: Setting,
    noisy: Corrupted,
    x_BTD: Tensor,
    before_ND: Tensor | None,
    joint_BTD: Tensor | None,
    positions: int,
) -> Tensor:
    """The same of what the last layer puts out, and what `Holding.loss` is told beside."""
    chosen_ND, holding = x_BTD[noisy.counted_BT], setting.holding
    if holding is not None and before_ND is not None:  # one pass of the head gives both
        return holding.loss(noisy, chosen_ND, before_ND, joint_BTD, positions, None)
    loss = setting.head(chosen_ND, noisy.target_N, noisy.weight_N, positions)
    if holding is None:
        return loss
    return holding.loss(noisy, chosen_ND, None, joint_BTD, positions, loss)


def trunk_output(rack: Rack, noisy: Corrupted, setting: Setting) -> Tensor:
    """Embedding and trunk, (B, T, D), or what was read of them. Kept for backward if it trains."""
    if noisy.trunk_BTD is not None:
        return noisy.trunk_BTD.to(torch.float32)
    frozen = bool(setting.trunk) or not any(p.requires_grad for p in rack.embedding.parameters())
    with torch.no_grad() if frozen else nullcontext():
        causal = noisy.direction(setting.causal)
        x_BTD = rack.embedding(noisy.input_BT, start_of(causal))
        return through(
            x_BTD,
            setting.trunk,
            causal=causal,
            border=setting.border,
            time_B=rack.time_of(noisy.input_BT, noisy.level_B),
        )


def autocast(device: torch.device, compute: torch.dtype) -> AbstractContextManager[object]:
    """bfloat16 matrix products where the experiment asks for them."""
    if compute == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=compute)
