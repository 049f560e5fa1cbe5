"""What a caller asks of sampling, checked before the rack is read.

A sampler checks by itself what only it knows: `per_step` beside steps, steps enough for its
windows or bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from stackwise.block_diffusion import read_as
from stackwise.choice import Params, parse
from stackwise.errors import ExperimentError, Problem
from stackwise.model.rack import Rack
from stackwise.objective import is_causal
from stackwise.sampling.registry import SAMPLERS, is_causal_sampler, samplers_for, takes_steps
from stackwise.sampling.semi_autoregressive import WHOLE

SEEDS = 1 << 63
BY_BLOCK = "semi_autoregressive"
USUAL = {"kind": BY_BLOCK, "inner": "ancestral"}  # of a text that is read block by block


def usual_method(causal: bool) -> str:
    """The sampler that is taken where none is named, of a text that is read as a whole."""
    return "autoregressive" if causal else "ancestral"


def block_in(objective: Params | None, tokens: int) -> int | None:
    """Tokens of a block, where so many tokens are read block by block; else None."""
    blocks = None if objective is None else read_as(objective, tokens)
    return None if blocks is None else blocks.size


def method_for(rack: Rack, method: str | Params | None, block: int | None = None) -> Params:
    """The parameters of a sampler that fits a rack.

    Args:
        rack: The rack.
        method: As for `sample`.
        block: Of `block_in`.

    Raises:
        ExperimentError: If it is unknown, its parameters are wrong, or it reads the rack in a
            direction in which it was not trained. A rack that does not say what it was trained for
            takes all.
    """
    objective = rack.objective if isinstance(rack, Rack) else None
    if method is None:
        causal = objective is not None and is_causal(objective)
        return parse(SAMPLERS, usual_method(causal) if block is None else USUAL, "method", "kind")
    with knobs_under("method."):
        params = parse(SAMPLERS, method, "method", "kind")
    if objective is not None:
        check_direction("method", params.choice, objective.choice, is_causal(objective))
    if block is not None:
        check_blocks("method", params, block)
    return params


@contextmanager
def knobs_under(place: str) -> Iterator[None]:
    """Say where a knob of a sampler was given, in the errors of what is read inside."""
    try:
        yield
    except ExperimentError as error:
        found = [Problem(place + p.path, p.text) if p.path else p for p in error.problems]
        raise ExperimentError(found) from None


def check_steps(key: str, steps: int | None, params: Params, method: str) -> None:
    """Refuse a number of steps that a sampler does not read.

    Args:
        key: What the caller calls the steps, for the message.
        steps: As many as were asked for; None if none were.
        params: The sampler's.
        method: The sampler as the caller asked for it, for the message.

    Raises:
        ExperimentError: If it does not read them.
    """
    if steps is not None and not takes_steps(params):
        raise ExperimentError(
            f"{key}: {steps} is not read with {method}, which says by itself how many steps there "
            "are; leave it out"
        )


def check_blocks(key: str, params: Params, block: int) -> None:
    """Refuse a sampler that does not write a text by the blocks that its rack learned.

    Raises:
        ExperimentError: If it is one that fills it as a whole, or has windows of its own.
    """
    if params.choice != BY_BLOCK:
        inner = "" if params.choice in WHOLE else f" with inner={params.choice}"
        raise ExperimentError(
            f"{key}: {params.choice!r} fills a text as a whole, and objective=block_diffusion "
            f"learned blocks of {block} tokens, each after those before it; use {BY_BLOCK}{inner}, "
            f"leave it out, or write {block} tokens at most"
        )
    asked = getattr(params, "block", None)
    if asked not in (None, block):
        raise ExperimentError(
            f"{key}.block: {asked}, but objective=block_diffusion learned blocks of {block} "
            "tokens; leave it empty"
        )


def check_direction(key: str, kind: str, objective: str, causal: bool) -> None:
    """Refuse a sampler that reads a rack as it never learned to.

    Args:
        key: What the caller calls the sampler, for the message.
        kind: The sampler's name.
        objective: Name of the objective that the rack was trained with.
        causal: Whether that reads left to right.

    Raises:
        ExperimentError: If it does.
    """
    if kind not in SAMPLERS or is_causal_sampler(kind) == causal:
        return
    by_block = objective == "block_diffusion"  # a longer text than a block takes no other one
    others = BY_BLOCK if by_block else ", ".join(samplers_for(causal))
    why = (
        f"fills in masks, of which objective={objective} knows none"
        if causal
        else f"reads from left to right, which objective={objective} does not learn"
    )
    raise ExperimentError(f"{key}: {kind!r} {why}; use {others} or leave it out")


def check_start(rack: Rack, ids_BT: Tensor, length: int) -> None:
    """Refuse ids that a rack does not know.

    Raises:
        ValueError: With what is wrong.
    """
    if ids_BT.dim() != 2:
        raise ValueError(f"start: {ids_BT.dim()} dimensions; give (T,) or (B, T)")
    if ids_BT.numel() and not 0 <= int(ids_BT.min()) <= int(ids_BT.max()) <= rack.mask_id:
        raise ValueError(
            f"start: ids from {int(ids_BT.min())} to {int(ids_BT.max())}, but the rack knows 0 to "
            f"{rack.mask_id - 1}, and {rack.mask_id} as [MASK]; use the tokenizer it was trained "
            "with"
        )
    if length < 0:
        raise ValueError(f"length: {length} must be 0 or more")


def check_prompt(rack: Rack, prompt_BP: Tensor, length: int) -> None:
    """Refuse what cannot be continued.

    Raises:
        ValueError: With what is wrong.
    """
    if prompt_BP.dim() not in (1, 2):
        raise ValueError(f"prompt: {prompt_BP.dim()} dimensions; give (P,) or (B, P)")
    if prompt_BP.numel() and not 0 <= int(prompt_BP.min()) <= int(prompt_BP.max()) < rack.mask_id:
        raise ValueError(
            f"prompt: ids from {int(prompt_BP.min())} to {int(prompt_BP.max())}, but the rack "
            f"knows 0 to {rack.mask_id - 1}; use the tokenizer it was trained with"
        )
    if length < 1:
        raise ValueError(f"length: {length} must be 1 or more")


def check_choosing(
    steps: int | None, temperature: float, top_k: int | None, top_p: float, seed: int
) -> None:
    """Refuse numbers out of range.

    Raises:
        ValueError: With what is wrong.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps: {steps} must be 1 or more; leave it out for one per token")
    if not 0 <= temperature < float("inf"):
        raise ValueError(
            f"temperature: {temperature} must be 0 or more and finite; 0 takes the best token"
        )
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k: {top_k} must be 1 or more; leave it out for all tokens")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: {top_p} must be over 0, and at most 1; 1 keeps all tokens")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed: {seed} must be 0 or more, and under {SEEDS}")
