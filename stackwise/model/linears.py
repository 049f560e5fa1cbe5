"""The linear layers of a block by name, and which of them an adapter is for.

Taken from the block itself, built without memory, so that any attention kind is known.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from stackwise.adapters import Targets, is_for
from stackwise.choice import Params
from stackwise.model.attention import kind_of
from stackwise.model.block import Block
from stackwise.model.init import Unfilled
from stackwise.model.shape import RackShape, attention_shape


class Linear(NamedTuple):
    """A linear layer of a block: `attention.qkv`, and its outputs and inputs."""

    name: str
    outputs: int
    inputs: int

    @property
    def weights(self) -> int:
        """Numbers of its matrix."""
        return self.outputs * self.inputs


def sized(shape: RackShape, attention: Params, number: int = 0) -> Block:
    """A block that has sizes and nothing else: no memory is asked for, however wide it is.

    Args:
        shape: The rack's.
        attention: Its attention kind.
        number: Of the block in the rack.
    """
    with torch.device("meta"), Unfilled():
        return Block(shape, attention, number)


@lru_cache(maxsize=64)
def linears_of(shape: RackShape, attention: Params) -> tuple[Linear, ...]:
    """The linear layers of a block, in the order in which it names them."""
    block = sized(shape, attention)
    return tuple(
        Linear(name, module.out_features, module.in_features)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    )


def targeted(shape: RackShape, attention: Params, targets: Targets) -> tuple[Linear, ...]:
    """Those that adapters of these targets are for."""
    every = linears_of(shape, attention)
    return tuple(each for each in every if is_for(targets, each.name.partition(".")[0]))


def narrowest(shape: RackShape, attention: Params, targets: Targets) -> tuple[str, int]:
    """The targeted layer with the smallest side, and that side: a rank over it would be none."""
    each = [(min(one.outputs, one.inputs), one.name) for one in targeted(shape, attention, targets)]
    least, name = min(each)
    return name, least


def readers(shape: RackShape, attention: Params, targets: Targets) -> tuple[Linear, ...]:
    """The first targeted layers: those that read what their sub-layer is given.

    Of an attention kind those whose weights, in the order of their names, are its
    `input_parameters`; of the feed-forward `gate` and `up`. With targets of the feed-forward alone,
    its own.
    """
    if targets == "ffn":
        names = ("ffn.gate", "ffn.up")
        return tuple(each for each in linears_of(shape, attention) if each.name in names)
    left = kind_of(attention).input_parameters(attention_shape(shape, 0), attention)
    found = []
    for each in targeted(shape, attention, "attention"):
        if each.inputs == shape.d_model and 0 < each.weights <= left:
            found.append(each)
            left -= each.weights
    return tuple(found)
