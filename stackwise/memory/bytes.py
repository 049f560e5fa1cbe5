"""Bytes of training by category, by arithmetic: weights, gradients, optimizer, activations.

Weights are those of every stack that the rack holds in a stage: as they train, as they are frozen,
or, where a stack is lent, its norms and a few blocks' slots; gradients, moments and averages exist
only for what trains; activations are what autograd keeps for backward, once per micro-batch, in the
blocks that gradient crosses, and the head at the positions that count. The meter in `meter.py`
measures the same; `tests/unit` hold the activations against autograd's own tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from stackwise.by_stage import as_read
from stackwise.completion import packing
from stackwise.curriculum import stages
from stackwise.memory.counted import micro_rows, micro_tokens
from stackwise.memory.devices import host_parts
from stackwise.memory.flops import (
    block_index,
    counted_frac,
    path_flops_per_token,
    stage_flops_per_token,
    vocab_size,
)
from stackwise.memory.held import held_activations, held_copies
from stackwise.memory.lowrank import (
    adapter_tensors,
    adapters_of,
    kept_beside,
    leftmost,
    not_kept,
)
from stackwise.memory.parts import FLOAT, Bytes, copied_bytes, in_hand, saved_of
from stackwise.memory.peak import stage_peak
from stackwise.memory.stored import (
    Tensors,
    lent_bytes,
    paged_of,
    part_tensors,
    rest_bytes,
    stack_bytes,
    state_of,
    trained_bytes,
    trained_tensors,
)
from stackwise.model.block import (
    block_cache_floats,
    block_cache_tokens,
    block_state_floats,
    norm_saved,
)
from stackwise.stage import Role, Stage, as_run, parts_trained, roles, untied_from
from stackwise.training.chunked import LOGITS_AT_ONCE
from stackwise.training.optim_costs import gradient_bytes
from stackwise.trunk.stream import SLOTS

if TYPE_CHECKING:
    from stackwise.config import Experiment, Placement


def stage_bytes(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    held: set[str],
    *,
    untied: bool = False,
    card: bool | None = None,
) -> dict[str, Bytes]:
    """Bytes of each part of a stage: `embedding`, every stack of `held`, `head`.

    And `slots`, where stacks are lent, `before`, what is kept of the rack before the stage, and
    `scratch`, the gradient in hand, where each tensor is stepped in backward.

    Args:
        exp: The experiment.
        placement: Its micro-batch and checkpointing decide the activations.
        stage: The stage.
        held: Ids of the stacks that the rack holds by then.
        untied: Whether a tied head has a table of its own by then.
        card: Whether it computes on a card; None: as the placement does here.
    """
    card, exp = on_card(placement) if card is None else card, as_read(exp, stage)
    role, form = roles(stage), packing(exp.precision)
    lends = placement.trunk != "recompute"
    hosted = lends and placement.stream_from == "host" and not card
    trains, carried = parts_trained(stage), adapters_of(stage)
    kept = rest_bytes(exp, form) if lends and not hosted else stack_bytes(exp, form)
    alike: dict[tuple[bool, Role | None], Bytes] = {}  # stacks of one rack are, in one role
    parts = {}
    for part in ("embedding", *sorted(held, key=lambda s: int(s[1:])), "head"):
        kind = (part in trains, role.get(part))
        if part in ("embedding", "head"):
            tensors = part_tensors(exp, part, untied=untied)
            frozen = Bytes(weights=trained_bytes(exp, tensors))
            state = state_of(exp, part, untied=untied)
            parts[part] = _trained(tensors, tensors, exp, state) if part in trains else frozen
            continue
        if kind not in alike:
            held_of, moved = part_tensors(exp, part), trained_tensors(exp, part)
            whole = Bytes(weights=kept)
            if kind[0]:
                whole = _trained(held_of, moved, exp, state_of(exp, part))
            alike[kind] = whole + Bytes(activations=_activations(exp, placement, kind[1]))
        parts[part] = alike[kind]
        if part in carried:
            parts[part] += _carried(exp, placement, stage, part)
    parts["head"] += Bytes(activations=_head_activations(exp, placement, stage))
    if copies := held_copies(exp, stage, untied):
        parts["before"] = Bytes(weights=sum(trained_bytes(exp, t) for t in copies.values()))
    lent = exp.rack.blocks_per_stack * sum(stack not in trains for stack in stage.path if lends)
    if lent:
        parts["slots"] = Bytes(weights=min(SLOTS, lent) * lent_bytes(exp, form))
    if exp.optim.grads == "in_backward":
        buffer, beside = in_hand(exp, placement, stage, untied)
        parts["scratch"] = Bytes(gradients=buffer + max(beside.values(), default=0))
    return parts


def host_bytes(
    exp: Experiment,
    placement: Placement,
    stage: Stage,
    held: set[str],
    *,
    card: bool | None = None,
) -> int:
    """Of host memory beside a card: the copy of all that is lent that `stream_from=host` reads."""
    card = on_card(placement) if card is None else card
    if placement.trunk == "recompute" or placement.stream_from != "host" or not card:
        return 0
    blocks = exp.rack.blocks_per_stack * len(held - parts_trained(stage))
    return blocks * lent_bytes(exp, packing(exp.precision))


def on_card(placement: Placement) -> bool:
    """Whether a placement computes on a card here."""
    return placement.device != "cpu" and torch.cuda.is_available()


def _counted(exp: Experiment, placement: Placement, stage: Stage) -> float:
    """Positions of a micro-batch at which the head is computed."""
    return counted_frac(exp, stage) * micro_tokens(exp, placement)


def _trained(whole_part: Tensors, tensors: Tensors, exp: Experiment, state: int) -> Bytes:
    """Weights of a part; of what of it trains, a gradient, the optimizer's state, an average."""
    whole = exp.optim.grads == "whole"
    numbers = sum(count for count, _ in tensors)
    return Bytes(
        weights=trained_bytes(exp, whole_part),
        gradients=gradient_bytes(exp.optim, exp.precision, (), tensors) if whole else 0,
        optimizer=state,
        average=FLOAT * numbers if exp.optim.ema is not None else 0,
    )


def _carried(exp: Experiment, placement: Placement, stage: Stage, stack: str) -> Bytes:
    """What the adapter of a stack adds to it in a stage."""
    adapter, leads = adapters_of(stage)[stack], stack == leftmost(stage)
    tensors = adapter_tensors(exp, adapter)
    added = _trained(tensors, tensors, exp, state_of(exp, adapter.part, stage=stage))
    if placement.checkpointing:
        return added
    rows, each = micro_rows(exp, placement), _compute_bytes(exp)
    kept = kept_beside(exp, adapter).bytes(each) * exp.rack.blocks_per_stack
    kept -= not_kept(exp, adapter).bytes(each) if leads else 0
    return added + Bytes(activations=rows * kept)


def _compute_bytes(exp: Experiment) -> int:
    return 2 if exp.precision.compute == "bfloat16" else 4


def _activations(exp: Experiment, placement: Placement, role: Role | None) -> int:
    """What one stack keeps for backward; with checkpointing, each block's input only."""
    if role is None or role == "trunk":
        return 0
    tokens, blocks = micro_rows(exp, placement), exp.rack.blocks_per_stack
    if placement.checkpointing:
        return tokens * blocks * FLOAT * exp.rack.d_model
    saved = saved_of(exp, role == "active")
    copies = copied_bytes(exp, placement, role)
    return blocks * (tokens * saved.bytes(_compute_bytes(exp)) + copies)


def _head_activations(exp: Experiment, placement: Placement, stage: Stage) -> int:
    """Chosen positions, final norm, logits and their log-softmax, float32; and the norm's input.

    Logits that are too many are made a few rows at a time, and the hidden states' gradient at once.
    """
    counted, vocab = _counted(exp, placement, stage), vocab_size(exp)
    held = held_activations(exp, stage, micro_rows(exp, placement), counted)
    norm = norm_saved(exp.rack).bytes(4) if exp.rack.norm_place == "pre" else 0
    if counted * vocab > LOGITS_AT_ONCE:
        rows = norm + 2 * _compute_bytes(exp) * exp.rack.d_model
        return held + round(counted * rows) + FLOAT * LOGITS_AT_ONCE
    return held + round(counted * (norm + FLOAT * (exp.rack.d_model * stage.head + vocab)))


def recompute_bytes(exp: Experiment, placement: Placement) -> int:
    """With checkpointing, what the one block that is being recomputed keeps meanwhile."""
    if not placement.checkpointing:
        return 0
    return micro_rows(exp, placement) * saved_of(exp, True).bytes(_compute_bytes(exp))


def cache_bytes_per_token(exp: Experiment, path: Sequence[str]) -> int:
    """Bytes that one token takes in a KV cache over `path`, in the dtype of matrix products."""
    floats = block_cache_floats(exp.rack, exp.attention) * exp.rack.blocks_per_stack
    return len(path) * floats * _compute_bytes(exp)


def decoding_bytes(exp: Experiment, path: Sequence[str], tokens: int) -> int:
    """Bytes that one sample of so many tokens takes in the cache of a decoder over `path`.

    Windows hold their last tokens alone, and running states, in float32, do not grow. Equal to what
    a cache holds: `tests/unit/test_a_cache_takes_the_bytes_that_are_said.py`.
    """
    each = block_cache_floats(exp.rack, exp.attention) * _compute_bytes(exp)
    numbers = [number for stack in path for number in block_index(exp, stack)]
    held = (block_cache_tokens(exp.rack, exp.attention, number, tokens) for number in numbers)
    return each * sum(held) + len(numbers) * FLOAT * block_state_floats(exp.rack, exp.attention)


def plan_rows(
    exp: Experiment, placement: Placement, made: Sequence[Stage], *, card: bool | None = None
) -> list[dict[str, Any]]:
    """What each stage is predicted to take: FLOPs, and bytes by category.

    In all, per part (`embedding`, the stacks, `head`) and per block (`s0.0`, ...); `bytes` has each
    category where it is largest, with as many counted positions as there are in the mean: they are
    not all there at once. `peak_bytes` is what the device holds at its highest moment, `peak_at`,
    and `peak` the same by category. `host_bytes` are those of the copy that lent blocks have in the
    machine's memory beside its card's, `host` all of it.

    Args:
        exp: The experiment.
        placement: How it is carried out.
        made: Its stages.
        card: Whether it computes on a card; None: as the placement does here.
    """
    rows: list[dict[str, Any]] = []
    held: set[str] = set()
    card = on_card(placement) if card is None else card
    apart = untied_from(exp.rack, made)
    for number, stage in enumerate(made):
        held |= {entry.stack for entry in stage.new or ()}
        untied = apart is not None and number >= apart
        parts = stage_bytes(exp, placement, stage, held, untied=untied, card=card)
        peak = stage_peak(exp, placement, stage, parts, untied=untied, card=card)
        own = as_read(exp, stage)
        again = recompute_bytes(own, placement)
        whole = sum(at_once(stage, parts), Bytes(activations=again))
        blocks = path_flops_per_token(exp, stage)
        cost = stage_flops_per_token(exp, stage, blocks)
        copy = host_bytes(exp, placement, stage, held, card=card)
        paged = paged_of(exp, stage, untied=untied)
        rows.append(
            {
                "stage": number,
                "name": stage.name,
                "tokens": stage.tokens,
                "seq_len": own.data.seq_len,
                "flops": (stage.tokens or 0) * cost.total,
                "flops_per_token": {**asdict(cost), "total": cost.total},
                "bytes": {**vars(whole), "total": whole.total},
                "peak_bytes": peak.total,
                "peak_at": peak.at,
                "peak": {key: count for key, count in vars(peak).items() if key != "at"},
                "host_bytes": copy,
                "host": host_parts(own, placement, copy, card=card, paged=paged),
                "bytes_by_part": {name: dict(vars(part)) for name, part in parts.items()},
                "block_bytes": _per_block(exp, parts),
                "cache_bytes_per_token": cache_bytes_per_token(exp, stage.path),
                "decoding_bytes": decoding_bytes(exp, stage.path, exp.data.seq_len),
                "block_flops_per_token": blocks,
            }
        )
    return rows


def at_once(stage: Stage, parts: Mapping[str, Bytes]) -> Iterator[Bytes]:
    """Of each part what is there in one step: gradients and activations of the stacks that run."""
    left_out = set(stage.path) - set(as_run(stage).path)
    for name, part in parts.items():
        yield replace(part, gradients=0, activations=0) if name in left_out else part


def _per_block(exp: Experiment, parts: dict[str, Bytes]) -> dict[str, dict[str, int]]:
    """Bytes by category of each block of the stacks held: blocks of one stack are alike."""
    each = exp.rack.blocks_per_stack
    out: dict[str, dict[str, int]] = {}
    for name, part in parts.items():
        if name not in ("embedding", "head", "slots", "scratch", "before"):
            block = Bytes(**{category: count // each for category, count in vars(part).items()})
            out |= {f"{name}.{i}": {**vars(block), "total": block.total} for i in range(each)}
    return out


def training_bytes(exp: Experiment, placement: Placement) -> int:
    """The highest of the stages' peaks."""
    return max(row["peak_bytes"] for row in plan_rows(exp, placement, stages(exp)))
