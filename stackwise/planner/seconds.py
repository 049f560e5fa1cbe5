"""Seconds of a training step of a stage, by part, in closed form.

FLOPs are the ledger's (`memory/flops.py`); what a block does beside products and attention goes
with the numbers that autograd keeps of it (`block_saved`), bytes are those of `memory/`. Each is
divided by a rate of `hardware.py`. Per micro-batch of N tokens:

    trunk      forward products + attention + around, dequantising; or what is read of a cache
    forward    the same of the blocks that gradient crosses, weights cast where dtypes differ
    backward   the ledger's rest of their FLOPs + around, suffixes dequantised again
    recompute  with checkpointing, `forward` once more
    head       its FLOPs at the positions that count, the logits' cross-entropy
    embedding  rows looked up and their gradient
    fresh      on a CPU, pages that the system clears before a large gradient is written

and once per step norms, clipping, the optimizer and the moving average. Blocks that are lent are
read ahead meanwhile: `streaming` is what reading takes beyond that. Calls of operators are a part
of every curve that was measured; on a card, where they go on beside the work, `launching` is what
they take beyond it.

Left out: making batches and waiting for them (under 1 % by `benchmarks/step.py`), compiling and
what it gains, and a machine that other programs use. Attention kinds without softmax are taken at
softmax's rate. What a stage takes beside its steps is in `stage_seconds.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from stackwise.completion import packing
from stackwise.memory.bytes import micro_tokens
from stackwise.memory.flops import (
    block_flops_per_token,
    block_index,
    counted_frac,
    head_flops_per_position,
    vocab_size,
)
from stackwise.memory.stored import block_linears, lent_bytes, part_tensors
from stackwise.model.block import (
    block_input_parameters,
    block_matmul_parameters,
    block_saved,
    block_scores,
)
from stackwise.model.count import head_matrices
from stackwise.model.shape import cycle
from stackwise.model.workspace import MAPPED_BYTES
from stackwise.objective import is_causal
from stackwise.planner.curve import rate_at, seconds_for
from stackwise.planner.hardware import Hardware
from stackwise.stage import Role, Stage, parts_trained, roles
from stackwise.training.chunked import LOGITS_AT_ONCE
from stackwise.training.optim import SLICE
from stackwise.training.updates import OPTIMIZERS

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

CALLS = {"forward": 40, "backward": 70}  # operators of a block, as torch's profiler counts them
TENSOR_CALLS = 12  # of norm, clip, optimizer and average for each tensor that trains
FLOAT = 4


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of one optimizer step, by part."""

    trunk: float = 0.0
    embedding: float = 0.0
    forward: float = 0.0
    backward: float = 0.0
    recompute: float = 0.0
    head: float = 0.0
    fresh: float = 0.0
    accumulate: float = 0.0
    optimizer: float = 0.0
    average: float = 0.0
    streaming: float = 0.0
    launching: float = 0.0

    @property
    def total(self) -> float:
        """All parts."""
        return sum(asdict(self).values())

    def __add__(self, other: StepSeconds) -> StepSeconds:
        names = [each.name for each in fields(self)]
        return StepSeconds(**{k: getattr(self, k) + getattr(other, k) for k in names})


def step_seconds(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    hardware: Hardware,
    *,
    untied: bool = False,
    from_disk: bool = False,
) -> StepSeconds:
    """What one optimizer step of a stage takes.

    Args:
        exp: The experiment.
        placement: Micro-batch, checkpointing, and where the trunk comes from.
        stage: The stage.
        hardware: The machine.
        untied: Whether a tied head has a table of its own by then.
        from_disk: Whether blocks that are lent from disk are more than the machine keeps
            in memory, so that every step reads them from the disk.

    Raises:
        ExperimentError: If the vocabulary is not known.
    """
    pass_ = Pass(exp, placement, hardware, micro_tokens(exp, placement))
    size = min(placement.micro_batch or exp.optim.batch, exp.optim.batch)
    micros = exp.optim.batch / size  # the last one may be smaller
    work = micro_seconds(pass_, stage, untied)
    whole = StepSeconds(**{key: micros * value for key, value in asdict(work).items()})
    whole += StepSeconds(
        fresh=math.ceil(micros) * fresh_seconds(exp, stage, hardware, untied),
        accumulate=(math.ceil(micros) - 1) * accumulate_seconds(exp, stage, hardware, untied),
        optimizer=optimizer_seconds(exp, stage, hardware, untied),
        average=average_seconds(exp, stage, hardware, untied),
    )
    read = micros * lent_seconds(exp, placement, stage, hardware, from_disk=from_disk)
    blocks = len(stage.path) * exp.rack.blocks_per_stack
    calls = micros * blocks * sum(CALLS.values()) + TENSOR_CALLS * len(trained(exp, stage, untied))
    launching = calls * hardware.call_seconds if hardware.calls_overlap else 0.0
    busy = whole.total
    return whole + StepSeconds(
        streaming=beyond(read, busy, hardware), launching=max(0.0, launching - busy - read)
    )


def beyond(read: float, busy: float, hardware: Hardware) -> float:
    """What reading ahead takes beyond computing: on a CPU it has one of its threads meanwhile."""
    if hardware.kind == "cuda":
        return max(0.0, read - busy)
    share = read / hardware.threads if hardware.threads > 1 else read
    return max(share, read - busy)


@dataclass(frozen=True)
class Pass:
    """One micro-batch of N tokens on a machine: what its pieces take."""

    exp: Experiment
    placement: Placement
    hardware: Hardware
    tokens: int

    @property
    def dtype(self) -> str:
        """Of matrix products."""
        return self.exp.precision.compute

    def products(self, flops: float, sides: Iterable[tuple[int, int]], rows: float) -> float:
        """Seconds of products with matrices of these (outputs, inputs), FLOPs shared by size."""
        shapes = list(sides)
        whole = sum(o * i for o, i in shapes)
        curve = self.hardware.matmul[self.dtype]
        if not whole or flops <= 0:
            return 0.0
        return sum(
            flops * (o * i / whole) / rate_at(curve, max(1.0, min(rows, o, i))) for o, i in shapes
        )

    def attention(self, flops: float, way: str) -> float:
        """Seconds of attention's scores and sums."""
        mask = "causal" if is_causal(self.exp.objective) else "full"
        curve = self.hardware.attention[f"{self.dtype}/{mask}/{way}"]
        return flops / rate_at(curve, self.exp.data.seq_len)

    def around(self, way: str) -> float:
        """Seconds of all else in a block, one way."""
        numbers = self.tokens * sum(block_saved(self.exp.rack, self.exp.attention, True))
        return seconds_for(self.hardware.around[f"{self.dtype}/{way}"], numbers)

    def weights(self, frozen: bool) -> float:
        """Seconds of making the weights of a block for one pass: dequantised, cast, or nothing."""
        exp, hardware = self.exp, self.hardware
        form, numbers = packing(exp.precision), block_matmul_parameters(exp.rack, exp.attention)
        lent = self.placement.trunk != "recompute"
        if frozen and (form is not None or lent):
            kept = form or {"float32": "fp32", "bfloat16": "bf16"}[exp.precision.weights]
            curve = hardware.dequantise[f"{kept}/{self.dtype}"]
            shapes = block_linears(exp.rack, exp.attention)
            return sum(o * i / rate_at(curve, o * i) for o, i in shapes)
        return self.cast(numbers)

    def cast(self, numbers: float) -> float:
        """Seconds of turning float32 matrices into what products take, or gradients back."""
        if self.exp.precision.weights == self.dtype:
            return 0.0
        return seconds_for(self.hardware.passing["cast"], numbers)

    def ahead(self, number: int, frozen: bool) -> float:
        """Seconds of a block forward, numbered over the whole rack."""
        exp, N = self.exp, self.tokens
        causal = is_causal(exp.objective)
        scores = block_scores(exp.rack, exp.attention, number, exp.data.seq_len, causal)
        pairs = scores.pairs + scores.constant
        flops = block_flops_per_token(exp, number, "trunk")
        sides = block_linears(exp.rack, exp.attention)
        forward = self.products(N * (flops - pairs), sides, N) + self.attention(
            N * pairs, "forward"
        )
        return forward + self.around("forward") + self.weights(frozen)

    def block(self, number: int, role: Role, first: bool) -> tuple[float, float]:
        """Seconds of a block forward and backward.

        Args:
            number: Over the whole rack.
            role: Its stack's.
            first: Whether nothing before it needs a gradient.
        """
        exp, N = self.exp, self.tokens
        causal = is_causal(exp.objective)
        scores = block_scores(exp.rack, exp.attention, number, exp.data.seq_len, causal)
        sides = block_linears(exp.rack, exp.attention)
        frozen = role != "active"
        forward = self.ahead(number, frozen)
        if role == "trunk":
            return forward, 0.0
        back = block_flops_per_token(exp, number, role)
        back -= block_flops_per_token(exp, number, "trunk")
        if first:
            back -= 2 * block_input_parameters(exp.rack, exp.attention)
        back_pairs = 2 * scores.pairs + scores.constant
        backward = self.products(N * (back - back_pairs), sides, N)
        backward += self.attention(N * back_pairs, "backward") + self.around("backward")
        matrices = block_matmul_parameters(exp.rack, exp.attention)
        backward += self.weights(True) if frozen else self.cast(matrices)
        return forward, backward

    def head(self, stage: Stage) -> float:
        """Seconds of final norm, head and loss, forward and backward."""
        exp, vocab = self.exp, vocab_size(self.exp)
        counted = counted_frac(exp, stage) * self.tokens
        sides = head_sides(exp)
        flops = head_flops_per_position(exp, stage) * counted
        logits = counted * vocab
        curve = self.hardware.loss[self.dtype]
        if logits <= LOGITS_AT_ONCE:
            return self.products(flops, sides, counted) + seconds_for(curve, logits)
        extra = stage.head * 2 * vocab * exp.rack.d_model * counted  # logits once more in backward
        pieces = seconds_for(curve, logits * (1 + stage.head), LOGITS_AT_ONCE)
        return self.products(flops + extra, sides, counted) + pieces

    def embedding(self, stage: Stage) -> float:
        """Seconds of looking rows up, and of their gradient where they train."""
        numbers = self.tokens * self.exp.rack.d_model
        if not stage.embedding:
            return seconds_for(self.hardware.passing["add"], numbers)
        table = vocab_size(self.exp) * self.exp.rack.d_model
        cleared = FLOAT * table / self.hardware.memory_rate
        return seconds_for(self.hardware.embedding, numbers) + cleared


def head_sides(exp: Experiment) -> list[tuple[int, int]]:
    """(outputs, inputs) of the matrices of a head."""
    width = exp.rack.d_model
    return [(round(weights / width), width) for weights in head_matrices(exp.rack, vocab_size(exp))]


def micro_seconds(pass_: Pass, stage: Stage, untied: bool) -> StepSeconds:
    """What one micro-batch takes, forward and backward."""
    exp, placement = pass_.exp, pass_.placement
    role, first = roles(stage), bool(stage.active) and not stage.embedding
    cached = placement.trunk == "cached" and not stage.embedding and "trunk" in role.values()
    trunk = forward = backward = recompute = 0.0
    for stack, block in blocks_of(exp, stage):
        part = role[stack]
        ahead, back = pass_.block(block, part, first and part == "active")
        first = first and part != "active"
        if part == "trunk":
            trunk += 0.0 if cached else ahead
            continue
        forward, backward = forward + ahead, backward + back
        recompute += ahead if placement.checkpointing else 0.0
    if cached:
        trunk = seconds_for(pass_.hardware.passing["add"], pass_.tokens * exp.rack.d_model)
    return StepSeconds(
        trunk=trunk,
        embedding=0.0 if cached else pass_.embedding(stage),
        forward=forward,
        backward=backward,
        recompute=recompute,
        head=pass_.head(stage),
    )


def blocks_of(exp: Experiment, stage: Stage) -> Iterator[tuple[str, int]]:
    """The blocks of a stage's path: their stack, and a block that is like each one."""
    again = cycle(exp.rack)
    for stack in stage.path:
        for block in block_index(exp, stack):
            yield stack, block % again


def trained(exp: Experiment, stage: Stage, untied: bool) -> list[tuple[int, int]]:
    """Numbers and axes of each tensor that a stage trains."""
    parts = sorted(parts_trained(stage))
    return [tensor for part in parts for tensor in part_tensors(exp, part, untied=untied)]


def numbers_trained(exp: Experiment, stage: Stage, untied: bool) -> int:
    """Numbers that a stage trains."""
    return sum(numbers for numbers, _ in trained(exp, stage, untied))


def fresh_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of clearing pages for the gradients of one micro-batch.

    glibc gives what is as large as `MAPPED_BYTES` back to the system each time, and where copies in
    another dtype come and go, smaller ones with the top of its heap, too. In backward linear layers
    share a buffer that stays.
    """
    if hardware.kind == "cuda" or exp.optim.grads == "in_backward":
        return 0.0
    casts = exp.precision.compute != exp.precision.weights
    low = exp.precision.weights == "bfloat16"
    sizes = [n * (2 if low and axes >= 2 else FLOAT) for n, axes in trained(exp, stage, untied)]
    return sum(size for size in sizes if casts or size >= MAPPED_BYTES) / hardware.fresh_rate


def accumulate_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of adding the gradients of one more micro-batch."""
    return seconds_for(hardware.passing["add"], numbers_trained(exp, stage, untied))


def optimizer_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of norms, clipping and the update of all that trains.

    A rule that is handed whole lists takes them at the rate of all numbers; one that gets slices,
    at that of each tensor.
    """
    whole = OPTIMIZERS[exp.optim.name].whole
    kinds: dict[str, list[int]] = {}
    for numbers, axes in trained(exp, stage, untied):
        low = exp.precision.weights == "bfloat16" and axes >= 2
        kind = f"bfloat16/{exp.precision.rounding}" if low else "float32/master"
        kinds.setdefault(kind, []).append(numbers)
    seconds = 0.0
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


def average_seconds(exp: Experiment, stage: Stage, hardware: Hardware, untied: bool) -> float:
    """Seconds of the moving average's update."""
    if exp.optim.ema is None:
        return 0.0
    numbers = numbers_trained(exp, stage, untied)
    return seconds_for(hardware.passing[f"average/{exp.precision.weights}"], numbers)


def lent_seconds(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    hardware: Hardware,
    *,
    from_disk: bool = False,
    forward: bool = False,
    cached: bool | None = None,
) -> float:
    """Seconds of bringing in the blocks that are lent, for one micro-batch.

    A trunk comes by once, unless its outputs are cached; a suffix in forward and, in reverse, in
    backward; with `forward`, on held-out text, each once. From disk a file that memory holds
    already is read from there.
    """
    if placement.trunk == "recompute":
        return 0.0
    role = roles(stage)
    if cached is None:
        cached = placement.trunk == "cached" and not stage.embedding
    times = {"trunk": 0 if cached else 1, "suffix": 2 + placement.checkpointing, "active": 0}
    if forward:
        times["suffix"] = 1
    blocks = sum(times[part] for part in role.values()) * exp.rack.blocks_per_stack
    size = blocks * lent_bytes(exp, packing(exp.precision))
    if not size:
        return 0.0
    if placement.stream_from == "host":
        return size / (hardware.link_rate or hardware.memory_rate / 2)
    rate = hardware.disk_read if from_disk else hardware.page_read
    return size / min(rate, hardware.link_rate or rate)
