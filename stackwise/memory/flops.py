"""The FLOP ledger: closed forms per token of a stage, head included.

A product of x (N, a) with a weight (a, b) is 2Nab FLOPs; its backward is twice that when both
input and weight need a gradient and once when only the input does. So, per token and per block
with n weights in matrix products and s FLOPs of attention scores forward:

    trunk 2n + s        active 6n + 3s        suffix 4n + 3s        head 6dV (frozen 4dV)

with the head only at the positions that count. Norms, activations and rotations are left out, as
in PaLM (arXiv 2204.02311, appendix B). Recomputation by gradient checkpointing is no progress and
is not counted. Held against hand counts and torch's counter in `tests/unit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from stackwise.errors import ExperimentError
from stackwise.masking import mean_mask_frac
from stackwise.model.block import block_matmul_parameters, block_score_flops
from stackwise.model.count import head_matmul_parameters
from stackwise.model.shape import stack_ids
from stackwise.objective import is_causal, schedule_of
from stackwise.stage import Role, Stage, roles

if TYPE_CHECKING:
    from stackwise.config import Experiment

WEIGHT_PASSES: dict[Role, int] = {"trunk": 1, "active": 3, "suffix": 2}
SCORE_PASSES: dict[Role, int] = {"trunk": 1, "active": 3, "suffix": 3}


@dataclass(frozen=True)
class Flops:
    """FLOPs per token of a stage, by what spends them; the head's also per counted position."""

    trunk: float
    active: float
    suffix: float
    head: float
    head_per_position: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.trunk + self.active + self.suffix + self.head


def vocab_size(exp: Experiment) -> int:
    """Entries of the head: the rack's, or else the tokenizer's.

    Raises:
        ExperimentError: If only a tokenizer's file could tell, and the rack does not say.
    """
    tokenizer = exp.data.tokenizer
    size = exp.rack.vocab or getattr(tokenizer, "entries", None)
    if size is None and tokenizer.choice == "bytes":
        size = 256
    if size is None:
        raise ExperimentError(
            f"rack.vocab: is empty with data.tokenizer={tokenizer.choice}, whose size stands in a "
            "file; give its number of entries (making a run fills it in)"
        )
    return int(size)


def block_index(exp: Experiment, stack: str) -> range:
    """The blocks of `stack`, numbered over the whole rack."""
    first = stack_ids(exp.rack).index(stack) * exp.rack.blocks_per_stack
    return range(first, first + exp.rack.blocks_per_stack)


def block_flops_per_token(exp: Experiment, block: int, role: Role) -> float:
    """FLOPs per token that one block, numbered over the whole rack, spends in its stack's role."""
    causal = is_causal(exp.objective)
    weights = 2 * block_matmul_parameters(exp.rack, exp.attention)
    scores = block_score_flops(exp.rack, exp.attention, block, exp.data.seq_len, causal)
    return WEIGHT_PASSES[role] * weights + SCORE_PASSES[role] * scores


def stack_flops_per_token(exp: Experiment, stack: str, role: Role) -> float:
    """FLOPs per token that one stack spends in its role."""
    return sum(block_flops_per_token(exp, block, role) for block in block_index(exp, stack))


def path_flops_per_token(exp: Experiment, stage: Stage) -> dict[str, float]:
    """FLOPs per token of each block of a stage's path, `s0.0`, ...; without the head."""
    return {
        f"{stack}.{i}": block_flops_per_token(exp, block, role)
        for stack, role in roles(stage).items()
        for i, block in enumerate(block_index(exp, stack))
    }


def counted_frac(exp: Experiment, stage: Stage) -> float:
    """Expected fraction of a sample's positions at which the head is computed."""
    if is_causal(exp.objective):
        return 1.0
    return mean_mask_frac(schedule_of(exp.objective, exp.masking.schedule), stage.band)


def stage_flops_per_token(exp: Experiment, stage: Stage) -> Flops:
    """What one token of a stage costs, forward and backward."""
    spent: dict[Role, float] = {"trunk": 0.0, "active": 0.0, "suffix": 0.0}
    for stack, role in roles(stage).items():
        spent[role] += stack_flops_per_token(exp, stack, role)
    trains_below = bool(stage.active) or stage.embedding
    passes = 1 + trains_below + stage.head
    each = passes * head_flops_per_position(exp)
    return Flops(**spent, head=each * counted_frac(exp, stage), head_per_position=each)


def head_flops_per_position(exp: Experiment) -> float:
    """FLOPs of the head, forward, at one position."""
    return 2.0 * head_matmul_parameters(exp.rack, vocab_size(exp))


def forward_flops_per_token(exp: Experiment, path: tuple[str, ...]) -> float:
    """FLOPs of reading one token through `path`, without the head."""
    return sum(stack_flops_per_token(exp, stack, "trunk") for stack in path)
