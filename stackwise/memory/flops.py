"""The FLOP ledger: closed forms per token of a stage, head included.

A product of x (N, a) with a weight (a, b) is 2Nab FLOPs; its backward is twice that when both
input and weight need a gradient and once when only one of them does. So, per token and per block
with n weights in matrix products, s FLOPs of attention scores forward and c of products with
random directions, which never train:

    trunk 2n + s + c     active 6n + 3s + 2c     suffix 4n + 3s + 2c     head 6dV (frozen 4dV)

with the head only at the positions that count. What adapters add to a suffix is in `lowrank.py`.
Weights of an active block that never train (`rack.frozen_up`) are those of a suffix. A readout of
the noise level (`rack.time`) is a product for each sample and not for each token, whose input needs
no gradient: of r weights it costs, with T tokens to a sample, 2r/T in trunk and suffix and 4r/T in
an active block. Where nothing that trains comes before a product, its input needs no gradient: so
for the first products of the first active block after a trunk, with post-norm, and for the head's
if it alone trains and has no norm. With `block_diffusion` a sample of T tokens passes through the
blocks as R rows, noisy and clean: all but the head is R/T times what R tokens cost, scores over R
rows dense, as the call makes them. Norms (of queries and keys, too), activations and rotations are
left out, as in PaLM (arXiv 2204.02311, appendix B), and so is spectral norm. The optimizer's own
matrix products, if it makes any, are counted over the tokens of a step.
Recomputation by gradient checkpointing is no progress and is not counted. Equal to torch's counter
for every role in `tests/unit/test_a_stage_costs_what_is_counted.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from stackwise import objective
from stackwise.adapters import Adapter
from stackwise.block_diffusion import read_as, rows_read
from stackwise.by_stage import as_read
from stackwise.errors import ExperimentError
from stackwise.evaluation import counts_in_blocks, stratified_counts
from stackwise.memory.lowrank import adapters_of, forward_flops, not_needed
from stackwise.model.attention import kind_of
from stackwise.model.block import (
    block_frozen_parameters,
    block_input_parameters,
    block_matmul_parameters,
    block_sample_parameters,
    block_scores,
)
from stackwise.model.count import head_matrices
from stackwise.model.scores import Scores
from stackwise.model.shape import attention_shape, cycle, stack_ids
from stackwise.objective import direction_of, is_causal
from stackwise.preserving import distils, path_read
from stackwise.stage import Role, Stage, as_run, roles, run_share

if TYPE_CHECKING:
    from stackwise.choice import Params
    from stackwise.config import Experiment
    from stackwise.model.rack import Rack
    from stackwise.model.shape import RackShape

SAMPLE_PASSES: dict[Role, int] = {"trunk": 1, "active": 2, "suffix": 1}
WEIGHT_PASSES: dict[Role, int] = {"trunk": 1, "active": 3, "suffix": 2}
PAIR_PASSES: dict[Role, int] = {"trunk": 1, "active": 3, "suffix": 3}
NO_ADAPTERS: Mapping[str, Adapter] = MappingProxyType({})
CONSTANT_PASSES: dict[Role, int] = {"trunk": 1, "active": 2, "suffix": 2}


@dataclass(frozen=True)
class Flops:
    """FLOPs per token of a stage, by what spends them; the head's also per counted position.

    The optimizer's are those of matrix products alone, as `muon` makes them in every step, over
    the tokens of a step. `held` are those of the rack before, which runs ahead where predictions
    are distilled from it, without its head, which is in `head`.
    """

    trunk: float
    active: float
    suffix: float
    head: float
    head_per_position: float
    optimizer: float = 0.0
    held: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        body = self.trunk + self.active + self.suffix + self.held
        return body + self.head + self.optimizer


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
    weights = 2 * block_matmul_parameters(exp.rack, exp.attention)
    scores = scores_per_row(exp, block)
    around = PAIR_PASSES[role] * scores.pairs + CONSTANT_PASSES[role] * scores.constant
    around += SAMPLE_PASSES[role] * 2 * block_sample_parameters(exp.rack) / exp.data.seq_len
    still = 2 * block_frozen_parameters(exp.rack) if role == "active" else 0
    return rows_per_token(exp) * (WEIGHT_PASSES[role] * weights - still + around)


def rows_per_token(exp: Experiment) -> float:
    """How often a token passes through the blocks: 1, or near twice where it is read by blocks."""
    return rows_read(exp.objective, exp.data.seq_len) / exp.data.seq_len


def scores_per_row(exp: Experiment, block: int) -> Scores:
    """FLOPs per row, forward, of one block's products without weights."""
    rows = rows_read(exp.objective, exp.data.seq_len)
    direction = direction_of(exp.objective, exp.data.seq_len)
    return block_scores(exp.rack, exp.attention, block, rows, direction)


def stack_flops_per_token(exp: Experiment, stack: str, role: Role) -> float:
    """FLOPs per token that one stack spends in its role."""
    return sum(_block_costs(exp, stack, role))


def _block_costs(exp: Experiment, stack: str, role: Role) -> list[float]:
    """FLOPs per token of each block of a stack; those that are alike are counted once."""
    blocks, again = block_index(exp, stack), cycle(exp.rack)
    kinds = [block_flops_per_token(exp, block, role) for block in blocks[:again]]
    return [kinds[i % again] for i in range(len(blocks))]


def path_flops_per_token(exp: Experiment, stage: Stage) -> dict[str, float]:
    """FLOPs per token of each block of a stage's path, `s0.0`, ...; without the head.

    Where a step runs only some of the stacks, those of the mean over steps.
    """
    exp = as_read(exp, stage)
    found, first = {}, bool(stage.active or stage.adapters) and not stage.embedding
    carried = adapters_of(stage)
    places, each = {s: i for i, s in enumerate(stack_ids(exp.rack))}, exp.rack.blocks_per_stack
    again, kinds = cycle(exp.rack), dict[tuple[int, Role], float]()  # blocks that are alike
    for stack, role in roles(stage).items():
        for i in range(each):
            kind = ((places[stack] * each + i) % again, role)
            if kind not in kinds:
                kinds[kind] = block_flops_per_token(exp, *kind)
            found[f"{stack}.{i}"] = run_share(stage, stack) * kinds[kind]
            if stack in carried:
                beside = 3 * forward_flops(exp, carried[stack])
                if first:
                    beside -= not_needed(exp, carried[stack], places[stack] * each)
                    first = False
                found[f"{stack}.{i}"] += rows_per_token(exp) * beside
            if role == "active" and first:  # nothing before it trains: its input needs no gradient
                given = 2 * block_input_parameters(exp.rack, exp.attention)
                found[f"{stack}.{i}"] -= rows_per_token(exp) * given
                first = False
    return found


def counted_frac(exp: Experiment, stage: Stage) -> float:
    """Expected fraction of a sample's positions at which the head is computed."""
    exp = as_read(exp, stage)
    return objective.counted_frac(
        exp.objective,
        exp.masking.schedule,
        sampling=exp.masking.sampling,
        band=stage.band,
        length=exp.data.seq_len,
        progress=stage.progress,
        bell=exp.masking.bell,
    )


def stage_flops_per_token(
    exp: Experiment, stage: Stage, blocks: Mapping[str, float] | None = None
) -> Flops:
    """What one token of a stage costs, forward and backward.

    Args:
        exp: The experiment.
        stage: The stage.
        blocks: Of `path_flops_per_token`, where it has been asked already.
    """
    spent: dict[Role, float] = {"trunk": 0.0, "active": 0.0, "suffix": 0.0}
    role = roles(stage)
    blocks = path_flops_per_token(exp, stage) if blocks is None else blocks
    for block, flops in blocks.items():
        spent[role[block.partition(".")[0]]] += flops
    each = head_flops_per_position(exp, stage)
    each += distils(stage) * head_flops_per_position(exp)
    return Flops(
        **spent,
        head=each * counted_frac(exp, stage),
        head_per_position=each,
        held=forward_flops_per_token(as_read(exp, stage), path_read(stage), adapters_of(stage)),
        optimizer=step_flops_of(exp, stage) / (exp.optim.batch * as_read(exp, stage).data.seq_len),
    )


def step_flops_of(exp: Experiment, stage: Stage) -> int:
    """FLOPs of the matrix products that the optimizer makes in one step of a stage.

    None for rules that move number by number. Those of `muon` are as many however short a batch is.

    Source: `tests/unit/test_newton_schulz_is_in_the_ledger.py`.
    """
    from stackwise.memory.stored import block_trained  # which asks for the vocabulary here
    from stackwise.training.optim_costs import step_flops

    blocks = len(as_run(stage).active or ()) * exp.rack.blocks_per_stack
    return blocks * step_flops(exp.optim, "s0", block_trained(exp.rack, exp.attention))


def head_flops_per_position(exp: Experiment, stage: Stage | None = None) -> float:
    """FLOPs of the head at one position: forward, or with the backward of a stage."""
    trains = stage is not None and stage.head
    below = stage is not None and bool(stage.active or stage.adapters or stage.embedding)
    reached = below or (trains and exp.rack.norm_place == "pre")  # its input needs a gradient
    total = 0.0
    for weights in head_matrices(exp.rack, vocab_size(exp)):
        total += 2 * weights * (1 + trains + reached)
        reached = reached or trains
    return total


def forward_flops_per_token(
    exp: Experiment, path: Sequence[str], carried: Mapping[str, Adapter] = NO_ADAPTERS
) -> float:
    """FLOPs of reading one token through `path`, and what its stacks carry, without the head."""
    beside = sum(forward_flops(exp, carried[stack]) for stack in path if stack in carried)
    whole = sum(stack_flops_per_token(exp, stack, "trunk") for stack in path)
    return whole + rows_per_token(exp) * exp.rack.blocks_per_stack * beside


def blocks_on(shape: RackShape, path: Sequence[str]) -> Iterator[int]:
    """The blocks of a path in their order, numbered over the whole rack."""
    places, each = {stack: i for i, stack in enumerate(stack_ids(shape))}, shape.blocks_per_stack
    for stack in path:
        yield from range(places[stack] * each, (places[stack] + 1) * each)


def read_flops_per_token(
    shape: RackShape, attention: Params, path: Sequence[str], length: int, causal: bool
) -> float:
    """FLOPs of reading one of `length` tokens through `path`, without the head.

    As `forward_flops_per_token`, for a rack of which no experiment is known; without adapters.
    """
    total, once = 0.0, SAMPLE_PASSES["trunk"] * 2 * block_sample_parameters(shape) / length
    for block in blocks_on(shape, path):
        scores = block_scores(shape, attention, block, length, causal)
        total += 2 * block_matmul_parameters(shape, attention) + once
        total += PAIR_PASSES["trunk"] * scores.pairs
        total += CONSTANT_PASSES["trunk"] * scores.constant
    return total


def decode_flops_per_token(
    shape: RackShape, attention: Params, path: Sequence[str], new: int, seen: int
) -> float | None:
    """FLOPs of reading one of `new` tokens after `seen` that are in a cache, without the head.

    None where the kind of attention does not say.
    """
    if not seen:
        return read_flops_per_token(shape, attention, path, new, True)
    kind = kind_of(attention)
    if kind.decode_flops is None:
        return None
    total = 0.0
    for block in blocks_on(shape, path):
        inner = kind.shaped(attention_shape(shape, block), attention)
        total += 2 * block_matmul_parameters(shape, attention)
        total += kind.decode_flops(inner, attention, new, seen)
    return total


def head_flops(shape: RackShape, vocab: int) -> float:
    """FLOPs of the head at one position, forward."""
    return 2.0 * sum(head_matrices(shape, vocab))


def exit_flops(
    exp: Experiment,
    path: Sequence[str],
    tokens: int,
    counted: int,
    carried: Mapping[str, Adapter] = NO_ADAPTERS,
) -> float:
    """FLOPs of the loss at every exit of `path`: one forward pass, and the head at each depth.

    Args:
        exp: The experiment.
        path: The stacks that run.
        tokens: Tokens read.
        counted: Those of them at which the head is computed.
        carried: The adapters of its stacks.
    """
    depths = 1 + len(path) * exp.rack.blocks_per_stack
    head = head_flops_per_position(exp) * counted * depths
    return forward_flops_per_token(exp, path, carried) * tokens + head


def entry_flops(
    exp: Experiment,
    path: Sequence[str],
    tokens: int,
    counted: int,
    carried: Mapping[str, Adapter] = NO_ADAPTERS,
) -> float:
    """FLOPs of the loss from every entry of `path`: its first stacks skipped, 0, 1, ... of them."""
    head = head_flops_per_position(exp) * counted
    rests = [path[skipped:] for skipped in range(len(path) + 1)]
    return sum(forward_flops_per_token(exp, rest, carried) * tokens + head for rest in rests)


def evaluation_flops(
    exp: Experiment, rack: Rack, windows: int, carried: Mapping[str, Adapter] = NO_ADAPTERS
) -> float:
    """FLOPs of `evaluate` on so many windows: each once, or with every number of masks drawn.

    Args:
        exp: Its seed and `eval.draws` decide the masks; its objective, with the last blocks.
        rack: Its paths, by masked fraction, decide what runs.
        windows: Of `data.seq_len` tokens.
        carried: The adapters of its stacks.
    """
    length, head = exp.data.seq_len, head_flops_per_position(exp)
    if is_causal(exp.objective):
        return windows * length * (forward_flops_per_token(exp, rack.path_for(1.0), carried) + head)
    if (blocks := read_as(exp.objective, length)) is not None:
        draws = 1 if blocks.size == 1 else exp.eval.draws
        k_DWN, _ = counts_in_blocks(windows, length, blocks.size, draws, exp.seed)
        each = forward_flops_per_token(exp, rack.path_for(1.0), carried)
        return draws * windows * length * each + head * int(k_DWN.sum())
    k_M, _, _ = stratified_counts(windows, length, exp.eval.draws, exp.seed)
    runs = Counter(rack.path_for(k / length) for k in k_M)
    read = sum(times * forward_flops_per_token(exp, path, carried) for path, times in runs.items())
    return length * read + head * int(k_M.sum())
