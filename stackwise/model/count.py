"""How many parameters a rack has, in closed form, without building it.

The published count: the vectors of [MASK] and [START] are ours and stay outside it. Held against
the modules on the meta device, for every preset, in `tests/unit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stackwise.choice import Params, parse
from stackwise.model.attention import ATTENTION
from stackwise.model.block import block_parameters, norm_parameters
from stackwise.model.shape import RackShape, total_blocks


def embedding_parameters(shape: RackShape, vocab: int) -> int:
    """Token table, learned positions, token types, norm; without [MASK] and [START]."""
    rows = vocab + shape.token_types
    if shape.positions == "learned":
        rows += shape.max_positions or 0
    return rows * shape.d_model + 2 * shape.d_model * shape.embed_norm


def head_matrices(shape: RackShape, vocab: int) -> tuple[int, ...]:
    """Weights of the head's matrix products, in their order, the tied table included."""
    dense = (shape.d_model**2,) if shape.head_transform else ()
    return (*dense, vocab * shape.d_model)


def head_parameters(shape: RackShape, vocab: int, *, untied: bool = False) -> int:
    """Every trainable number of final norm and head; a tied table is the embedding's.

    Args:
        shape: The rack's.
        vocab: Entries of the head.
        untied: Whether a tied head has been given a table of its own.
    """
    count = 0 if shape.tied and not untied else vocab * shape.d_model
    count += norm_parameters(shape) if shape.norm_place == "pre" else 0
    if shape.head_transform:
        count += shape.d_model**2 + shape.d_model + norm_parameters(shape)
    return count + vocab * shape.head_bias


def count_parameters(
    shape: RackShape, attention: Params | str | Mapping[str, Any], vocab: int
) -> int:
    """Every trainable number of the finished rack, as its publication counts them.

    Args:
        shape: Its sizes.
        attention: The attention kind: its name, parameters, or a mapping of them.
        vocab: Entries of the head.

    Raises:
        ExperimentError: If the attention is unknown, or its parameters are wrong.
    """
    params = parse(ATTENTION, attention, "attention", "kind")
    return (
        embedding_parameters(shape, vocab)
        + total_blocks(shape) * block_parameters(shape, params)
        + head_parameters(shape, vocab)
    )
