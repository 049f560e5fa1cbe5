"""Seconds of what a step does to what trains: gradients, norms, the optimizer, the average."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackwise.memory.stored import block_trained, trained_tensors
from stackwise.model.workspace import MAPPED_BYTES
from stackwise.planner.curve import rate_at, seconds_for
from stackwise.planner.hardware import Hardware
from stackwise.stage import Stage, parts_trained
from stackwise.training.optim import SLICE
from stackwise.training.optim_costs import step_flops
from stackwise.training.updates import OPTIMIZERS

if TYPE_CHECKING:
    from stackwise.config import Experiment

FLOAT = 4


def trained(exp: Experiment, stage: Stage, untied: bool) -> list[tuple[int, int]]:
    """Numbers and axes of each tensor that a stage trains."""
    parts = sorted(parts_trained(stage))
    return [
        tensor
        for part in parts
        for tensor in trained_tensors(exp, part, untied=untied, stage=stage)
    ]


def numbers_trained(exp: Experiment, stage: Stage, untied: bool) -> int:
    """Numbers that a stage trains."""
    return sum(numbers for numbers, _ in trained(exp, stage, untied))


def fresh_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of clearing pages for the gradients of one micro-batch.

    glibc gives what is as large as `MAPPED_BYTES` back to the system each time. In backward linear
    layers share a buffer that stays.
    """
    if hardware.kind == "cuda" or exp.optim.grads == "in_backward":
        return 0.0
    low = exp.precision.weights == "bfloat16"
    sizes = [n * (2 if low and axes >= 2 else FLOAT) for n, axes in trained(exp, stage, untied)]
    return sum(size for size in sizes if size >= MAPPED_BYTES) / hardware.fresh_rate


def accumulate_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of adding the gradients of one more micro-batch."""
    return seconds_for(hardware.passing["add"], numbers_trained(exp, stage, untied))


def optimizer_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of norms, clipping and the update of all that trains.

    A rule that is handed whole lists takes them at the rate of all numbers; one that gets slices,
    at that of each tensor. The matrix products of a rule are bfloat16.
    """
    whole = OPTIMIZERS[exp.optim.name].whole
    kinds: dict[str, list[int]] = {}
    for numbers, axes in trained(exp, stage, untied):
        low = exp.precision.weights == "bfloat16" and axes >= 2
        kind = f"bfloat16/{exp.precision.rounding}" if low else "float32/master"
        kinds.setdefault(kind, []).append(numbers)
    seconds = product_seconds(exp, stage, hardware)
    for kind, sizes in kinds.items():
        curve = hardware.optimizer[f"{exp.optim.name}/{kind}"]
        if whole and kind == "float32/master":
            seconds += seconds_for(curve, sum(sizes))
        else:
            seconds += sum(seconds_for(curve, size) for size in sizes)
    every = sum(sum(sizes) for sizes in kinds.values())
    if exp.optim.grads == "in_backward":
        return seconds + seconds_for(hardware.passing["norms"], every, SLICE)
    clip = seconds_for(hardware.passing["clip"], every) if exp.optim.clip is not None else 0.0
    return seconds + seconds_for(hardware.passing["norms"], every) + clip


def product_seconds(exp: Experiment, stage: Stage, hardware: Hardware) -> float:
    """Seconds of the matrix products that the optimizer makes, in bfloat16."""
    blocks = len(stage.active or ()) * exp.rack.blocks_per_stack
    curve, shapes = hardware.matmul["bfloat16"], block_trained(exp.rack, exp.attention)
    flops = ((step_flops(exp.optim, "s0", [shape]), min(shape)) for shape in shapes)
    return blocks * sum(count / rate_at(curve, side) for count, side in flops if count)


def average_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of the moving average's update."""
    if exp.optim.ema is None:
        return 0.0
    numbers = numbers_trained(exp, stage, untied)
    return seconds_for(hardware.passing[f"average/{exp.precision.weights}"], numbers)
