"""Seconds of one micro-batch's pieces: a block forward and backward, the head, the embedding.

What they add up to in a step is in `seconds.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise.adapters import Adapter
from stackwise.block_diffusion import rows_read
from stackwise.completion import packing
from stackwise.memory.flops import (
    block_flops_per_token,
    counted_frac,
    head_flops_per_position,
    rows_per_token,
    scores_per_row,
    vocab_size,
)
from stackwise.memory.lowrank import forward_flops, layers
from stackwise.memory.parts import dequantises, saved_of
from stackwise.memory.stored import block_linears, token_linears
from stackwise.model.block import (
    block_input_parameters,
    block_matmul_parameters,
)
from stackwise.model.count import head_matrices
from stackwise.objective import is_causal
from stackwise.planner.curve import level_at, rate_at, seconds_for
from stackwise.planner.hardware import Hardware
from stackwise.stage import Role, Stage
from stackwise.training.chunked import LOGITS_AT_ONCE

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement

FLOAT = 4


@dataclass(frozen=True)
class Pass:
    """One micro-batch of N tokens on a machine: what its pieces take."""

    exp: Experiment
    placement: Placement
    hardware: Hardware
    tokens: int

    @property
    def rows(self) -> float:
        """Of the blocks' matrices: tokens, or more where they are read twice."""
        return self.tokens * rows_per_token(self.exp)

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
        return flops / rate_at(curve, rows_read(self.exp.objective, self.exp.data.seq_len))

    def around(self, way: str) -> float:
        """Seconds of all else in a block, one way."""
        numbers = self.rows * sum(saved_of(self.exp, True))
        return seconds_for(self.hardware.around[f"{self.dtype}/{way}"], numbers)

    def together(self, way: str) -> float:
        """How many times as long a block takes as its pieces do alone, one way."""
        curve = self.hardware.together.get(f"{self.dtype}/{way}")
        return 1.0 if curve is None else level_at(curve, self.exp.rack.d_model)

    def weights(self, frozen: bool) -> float:
        """Seconds of making the weights of a block for one pass: dequantised, cast, or nothing."""
        exp, hardware = self.exp, self.hardware
        form, numbers = packing(exp.precision), block_matmul_parameters(exp.rack, exp.attention)
        lent = self.placement.trunk != "recompute"
        if frozen and (form is not None or lent):
            if not dequantises(exp, self.placement):
                return 0.0
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
        scores, again = scores_per_row(exp, number), rows_per_token(exp)
        pairs = again * (scores.pairs + scores.constant)
        flops = block_flops_per_token(exp, number, "trunk")
        sides = token_linears(exp.rack, exp.attention)
        forward = self.products(N * (flops - pairs), sides, self.rows) + self.attention(
            N * pairs, "forward"
        )
        forward += self.around("forward") + self.weights(frozen)
        return forward * self.together("forward")

    def block(self, number: int, role: Role, first: bool) -> tuple[float, float]:
        """Seconds of a block forward and backward.

        Args:
            number: Over the whole rack.
            role: Its stack's.
            first: Whether nothing before it needs a gradient.
        """
        exp, N = self.exp, self.tokens
        scores, again = scores_per_row(exp, number), rows_per_token(exp)
        sides = token_linears(exp.rack, exp.attention)
        frozen = role != "active"
        forward = self.ahead(number, frozen)
        if role == "trunk":
            return forward, 0.0
        back = block_flops_per_token(exp, number, role)
        back -= block_flops_per_token(exp, number, "trunk")
        if first:
            back -= again * 2 * block_input_parameters(exp.rack, exp.attention)
        back_pairs = again * (2 * scores.pairs + scores.constant)
        backward = self.products(N * (back - back_pairs), sides, self.rows)
        backward += self.attention(N * back_pairs, "backward") + self.around("backward")
        matrices = block_matmul_parameters(exp.rack, exp.attention)
        backward += self.weights(True) if frozen else self.cast(matrices)
        return forward, backward * self.together("backward")

    def beside(self, adapter: Adapter) -> tuple[float, float]:
        """Seconds of what a stack's adapter adds, forward and backward: thin products."""
        each, N = layers(self.exp, adapter), self.rows
        sides = [(adapter.rank, side) for _, o, i in each for side in (o, i)]
        ahead = self.products(N * forward_flops(self.exp, adapter), sides, N)
        numbers = N * sum(o for _, o, _ in each)
        ahead += 2 * seconds_for(self.hardware.passing["add"], numbers)  # scaled, and added
        ahead *= self.exp.rack.blocks_per_stack
        return ahead, 2 * ahead

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
        numbers = self.rows * self.exp.rack.d_model
        if not stage.embedding:
            return seconds_for(self.hardware.passing["add"], numbers)
        table = vocab_size(self.exp) * self.exp.rack.d_model
        cleared = FLOAT * table / self.hardware.memory_rate
        return seconds_for(self.hardware.embedding, numbers) + cleared


def head_sides(exp: Experiment) -> list[tuple[int, int]]:
    """(outputs, inputs) of the matrices of a head."""
    width = exp.rack.d_model
    return [(round(weights / width), width) for weights in head_matrices(exp.rack, vocab_size(exp))]
